import java.io.FileInputStream;
import java.net.URL;
import java.security.KeyStore;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLHandshakeException;
import javax.net.ssl.TrustManagerFactory;

/** Asks for a URL, trusting just what a keystore holds: prints the status, or "refused" where it is not trusted. */
public class TlsClient {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(arguments[0]);
        try (FileInputStream stream = new FileInputStream(arguments[1])) {
            store.load(stream, arguments[2].toCharArray());
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpsURLConnection connection = (HttpsURLConnection) new URL(arguments[3]).openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        connection.setConnectTimeout(10000);
        connection.setReadTimeout(10000);
        try {
            System.out.println(connection.getResponseCode());
        } catch (SSLHandshakeException error) {
            System.out.println("refused");
        }
    }
}
