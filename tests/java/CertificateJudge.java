import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;

/**
 * Says of many keystores whether this Java opens them. The input: a password (two bytes of length, UTF-8); then, until
 * it ends, stores: a byte J or P for the type, four bytes of length, the store. The answer has a line for each, in
 * order: "ok", or the class and the message of what KeyStore.load threw. What a store holds must all be there.
 */
public class CertificateJudge {
    public static void main(String[] arguments) throws Exception {
        DataInputStream input = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        PrintStream output = new PrintStream(System.out, false, StandardCharsets.UTF_8.name());
        char[] password = input.readUTF().toCharArray();
        for (int type = input.read(); type != -1; type = input.read()) {
            byte[] store = new byte[input.readInt()];
            input.readFully(store);
            output.println(verdict(type == 'J' ? "JKS" : "PKCS12", store, password).replaceAll("[\\r\\n]+", " "));
        }
        output.flush();
    }

    private static String verdict(String type, byte[] store, char[] password) {
        try {
            KeyStore loaded = KeyStore.getInstance(type);
            loaded.load(new ByteArrayInputStream(store), password);
            return loaded.size() > 0 ? "ok" : "empty";
        } catch (Exception | StackOverflowError error) {
            Throwable cause = error;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            return cause.getClass().getName() + ": " + cause.getMessage();
        }
    }
}
