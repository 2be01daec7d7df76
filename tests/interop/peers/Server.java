import java.io.FileInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** Reads so many TLS 1.3 connections to their ends, and closes each. Prints the port, then how much it read, and the end. */
class Server {
    public static void main(String[] arguments) throws Exception {
        Certificate certificate;
        try (var file = new FileInputStream(arguments[0])) {
            certificate = CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        var pem = Files.readString(Path.of(arguments[1])).replaceAll("-----.*-----|\\s", "");
        var key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
        var keys = KeyStore.getInstance(KeyStore.getDefaultType());
        keys.load(null);
        keys.setKeyEntry("server", key, new char[0], new Certificate[] {certificate});
        var managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(keys, new char[0]);
        var context = SSLContext.getInstance("TLS");
        context.init(managers.getKeyManagers(), null, null);

        var listener = (SSLServerSocket)
                context.getServerSocketFactory().createServerSocket(0, 50, InetAddress.getLoopbackAddress());
        listener.setEnabledProtocols(new String[] {"TLSv1.3"});
        System.out.println("port " + listener.getLocalPort());
        byte[] buffer = new byte[65536];
        for (int left = Integer.parseInt(arguments[2]); left > 0; left--) {
            var socket = (SSLSocket) listener.accept();
            long received = 0;
            var end = "closed";
            try (socket) {
                for (int read; (read = socket.getInputStream().read(buffer)) >= 0; ) {
                    received += read;
                }
            } catch (IOException error) {
                end = "failed";
            }
            System.out.println("received " + received + " " + end);
        }
    }
}
