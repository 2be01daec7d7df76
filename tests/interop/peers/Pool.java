import java.io.FileInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Sends POST requests one after the other through a pool. Prints how many were answered. Every other request has a large body and goes to
 * a path that does not exist, so that the server answers before it has read the body. With "idle", it makes one request instead, prints
 * "idle", and waits until its input ends.
 */
class Pool {
    public static void main(String[] arguments) throws Exception {
        var url = "https://127.0.0.1:" + arguments[0];
        var trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        try (var file = new FileInputStream(arguments[1])) {
            trusted.setCertificateEntry("server", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        var context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        var client = HttpClient.newBuilder().sslContext(context).version(HttpClient.Version.HTTP_1_1).build();

        boolean idle = arguments[2].equals("idle");
        int answered = 0;
        for (int number = idle ? 1 : 0; number < (idle ? 2 : 80); number++) {
            boolean large = number % 2 == 0;
            var body = BodyPublishers.ofByteArray(new byte[large ? 60_000 : 5]);
            var request = HttpRequest.newBuilder(URI.create(url + (large ? "/unknown" : "/count"))).POST(body).build();
            try {
                client.send(request, BodyHandlers.ofByteArray());
                answered++;
            } catch (IOException error) {
                System.err.println(error);
            }
        }
        if (idle) {
            System.out.println("idle");
            System.in.read();
        }
        System.out.println(answered);
        // The threads of the client would go on.
        System.exit(0);
    }
}
