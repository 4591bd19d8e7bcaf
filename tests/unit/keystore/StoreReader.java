import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.Key;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.util.Base64;
import java.util.Collections;

/**
 * Says what Java finds in keystores. One line asks: type, path, password, password of the keys, each in base64 and
 * separated by spaces. The answer is a line for each entry (alias, kind, milliseconds of its date, key, certificates of
 * its chain; - is none) and then "ok", or "error" with the message.
 */
public class StoreReader {
    public static void main(String[] arguments) throws Exception {
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            String[] fields = line.split(" ", -1);
            for (int i = 0; i < fields.length; i++) {
                fields[i] = new String(Base64.getDecoder().decode(fields[i]), StandardCharsets.UTF_8);
            }
            try {
                System.out.print(answer(fields[0], fields[1], fields[2].toCharArray(), fields[3].toCharArray()));
                System.out.println("ok");
            } catch (Exception error) {
                System.out.println("error " + base64(error.toString().getBytes(StandardCharsets.UTF_8)));
            }
            System.out.flush();
        }
    }

    private static String answer(String type, String path, char[] password, char[] keyPassword) throws Exception {
        KeyStore store = KeyStore.getInstance(type);
        try (FileInputStream stream = new FileInputStream(path)) {
            store.load(stream, password);
        }
        StringBuilder lines = new StringBuilder();
        for (String alias : Collections.list(store.aliases())) {
            String kind = "none";
            if (store.entryInstanceOf(alias, KeyStore.TrustedCertificateEntry.class)) {
                kind = "trustedCertEntry";
            } else if (store.entryInstanceOf(alias, KeyStore.PrivateKeyEntry.class)) {
                kind = "PrivateKeyEntry";
            } else if (store.entryInstanceOf(alias, KeyStore.SecretKeyEntry.class)) {
                kind = "SecretKeyEntry";
            }
            Certificate[] chain = store.getCertificateChain(alias);
            Certificate single = store.getCertificate(alias);
            if (chain == null) {
                chain = single == null ? new Certificate[0] : new Certificate[] {single};
            }
            Key key = store.isKeyEntry(alias) ? store.getKey(alias, keyPassword) : null;
            lines.append(base64(alias.getBytes(StandardCharsets.UTF_8))).append(' ').append(kind).append(' ');
            lines.append(store.getCreationDate(alias) == null ? 0 : store.getCreationDate(alias).getTime());
            lines.append(' ').append(key == null ? "-" : base64(key.getEncoded()));
            for (Certificate certificate : chain) {
                lines.append(' ').append(base64(certificate.getEncoded()));
            }
            lines.append('\n');
        }
        return lines.toString();
    }

    private static String base64(byte[] bytes) {
        return Base64.getEncoder().encodeToString(bytes);
    }
}
