-- For wrk: POST requests with a small body. Prints how many were answered, and how many failed, as JSON.

wrk.method = "POST"
wrk.body = "0123456789"

function done(summary)
    local errors = summary.errors
    io.write(string.format('{"requests":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n', summary.requests,
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
