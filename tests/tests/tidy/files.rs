//! Rules of every file: nothing is left behind, nothing is too long, no test waits by the clock without a reason.

use crate::repository::{Repository, code, numbered};

/// Nothing names a machine's paths or a registry's host, and nothing is unfinished. The patterns are in two parts, so that they do not find
/// themselves.
pub(crate) fn nothing_is_left_behind(repository: &Repository) -> Vec<String> {
    let everywhere = [
        concat!("/wo", "rk/"),
        concat!("/tm", "p/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("npmjs", ".com"),
        concat!("proxy.golang", ".org"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let in_rust = [
        concat!("#[", "ignore"),
        concat!("#[should", "_panic"),
        concat!("dbg", "!("),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("thread::", "sleep"),
    ];
    let mut complaints = Vec::new();
    // cargo writes `Cargo.lock`.
    for (path, text) in repository.files("", "").filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (number, line) in numbered(text) {
            let rust = in_rust.iter().filter(|_| path.ends_with(".rs"));
            for pattern in everywhere.iter().chain(rust).filter(|pattern| line.contains(**pattern)) {
                complaints.push(format!("{path}:{number}: `{pattern}`: {}", line.trim()));
            }
        }
    }
    complaints
}

/// Examples are short, since a long one is not read. Exceptions are an FTP server, which takes more to be tried with curl, and the file that
/// the examples share.
pub(crate) fn examples_are_short(repository: &Repository) -> Vec<String> {
    const LINES: usize = 60;
    const OTHERS: [&str; 2] = ["examples/ftps_ccc.rs", "examples/lib.rs"];
    let examples = repository.files("examples/", ".rs").filter(|(path, _)| !path.starts_with("examples/tests/"));
    let examples = examples.filter(|(path, _)| !OTHERS.contains(path));
    let long = examples.filter(|(_, text)| text.lines().count() > LINES);
    long.map(|(path, text)| format!("{path}: {} lines, more than {LINES}", text.lines().count())).collect()
}

/// The changelog has a section for the version that would be published.
pub(crate) fn the_changelog_has_the_version(repository: &Repository) -> Vec<String> {
    let manifest = repository.text("Cargo.toml");
    let package = manifest.split_once("[workspace.package]").map_or("", |(_, package)| package);
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or("").trim_matches('"');
    match repository.text("CHANGELOG.md").lines().any(|line| line.starts_with(&format!("## [{version}]"))) {
        true => Vec::new(),
        false => vec![format!("CHANGELOG.md: no section `## [{version}]`")],
    }
}

/// The files of tests that wait by the real clock, each with the reason why it awaits no event.
const FILES_THAT_WAIT: [(&str, &str); 6] = [
    ("tests/src/time.rs", "the helper for all others; each use of it has a reason of its own"),
    ("tests/src/openssl_peer.rs", "OpenSSL has only the real clock; the bound of a wait for a message"),
    ("tests/tests/budgets.rs", "its runtimes are paused"),
    ("tests/interop/src/lib.rs", "nothing reports what `/proc` shows of another process"),
    ("tests/interop/tests/floods.rs", "the pace of an endless peer"),
    (
        "crates/tls-shutdown-cli/tests/command/endings.rs",
        "a pause of a client, in which another server would close its socket",
    ),
];

/// Where a test runs on a paused clock, or awaits an event, it is fast, and a busy machine does not fail it.
pub(crate) fn tests_await_events(repository: &Repository) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in repository.files("", ".rs") {
        let in_tests = path.starts_with("tests/") || path.contains("/tests/");
        if !in_tests || path.starts_with("tests/tests/tidy/") {
            continue;
        }
        let waits = |line: &str| ["sleep(", "interval(", "recv_timeout("].iter().any(|wait| code(line).contains(wait));
        let waiting: Vec<_> = numbered(text).filter(|(_, line)| waits(line)).collect();
        let is_listed = FILES_THAT_WAIT.iter().any(|(file, _)| *file == path);
        if is_listed && waiting.is_empty() {
            complaints.push(format!("{path}: is listed among the files that wait, and does not"));
        }
        if !is_listed && !is_paused(text) {
            complaints.extend(
                waiting.iter().map(|(number, line)| {
                    format!("{path}:{number}: await an event, or pause the clock: {}", line.trim())
                }),
            );
        }
        let mut before = "";
        for (number, line) in numbered(text) {
            if code(line).contains("real_time(") && !line.contains("fn ") && !before.trim().starts_with("// ") {
                complaints.push(format!("{path}:{number}: the line above states no reason: {}", line.trim()));
            }
            before = line;
        }
    }
    complaints
}

/// Whether all asynchronous tests of a file run on a paused clock.
fn is_paused(text: &str) -> bool {
    let mut tests = text.lines().filter(|line| line.trim().starts_with("#[tokio::test")).peekable();
    tests.peek().is_some() && tests.all(|test| test.contains("start_paused = true"))
}
