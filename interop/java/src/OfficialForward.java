import io.kubernetes.client.PortForward;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Port-forward over WebSocket channels by Kubernetes' client for Java, through its own PortForward only. Options,
 * statuses and the result are those of forward.py: {@code OfficialForward --server URL --pod NAME --ports 80,81
 * [options]}
 */
public final class OfficialForward {
  private static final String USAGE = "OfficialForward --server URL --pod NAME --ports 80,81 [options]";

  public static void main(String[] arguments) throws Exception {
    var options = Official.options();
    options.put("ports", null);
    Peer peer = new Peer(USAGE, arguments, options, Set.of());
    if (peer.get("server") == null || peer.get("pod") == null || peer.get("ports") == null) {
      Peer.fail(USAGE, 2);
    }
    Map<String, Object> said = new LinkedHashMap<>();
    peer.result.put("error", null);
    peer.result.put("ports", said);
    try {
      run(peer, said);
      peer.end(0);
    } catch (Exception error) {
      error.printStackTrace();
      peer.result.put("error", error.toString());
      peer.end(1);
    }
  }

  private static void run(Peer peer, Map<String, Object> said) throws Exception {
    byte[] sent = System.in.readAllBytes();
    List<Integer> ports = Arrays.stream(peer.get("ports").split(",")).map(Integer::valueOf).toList();
    Official official = new Official(peer.get("server"), peer.get("protocol"));
    var forward = new PortForward(official.api).forward(peer.get("namespace"), peer.get("pod"), ports);
    List<Thread> readers = new ArrayList<>();
    for (int port : ports) {
      Map<String, Object> of = new LinkedHashMap<>();
      said.put(String.valueOf(port), of);
      InputStream answer = forward.getInputStream(port);
      InputStream errors = forward.getErrorStream(port);
      OutputStream to = forward.getOutboundStream(port);
      readers.add(Peer.background(() -> read(answer, of)));
      readers.add(Peer.background(() -> {
        // The library leaves it to the caller to skip the port number at the beginning of this channel.
        byte[] all = errors.readAllBytes();
        String text = new String(all, Math.min(2, all.length), Math.max(0, all.length - 2), StandardCharsets.UTF_8);
        of.put("error", text.isEmpty() ? null : text);
      }));
      Peer.background(() -> send(to, sent));
    }
    for (Thread reader : readers) {
      reader.join();
    }
    official.ended();
  }

  private static void read(InputStream answer, Map<String, Object> of) throws IOException {
    MessageDigest sum = Peer.sha256();
    byte[] piece = new byte[32 * 1024];
    int bytes = 0;
    for (int got = answer.read(piece); got >= 0; got = answer.read(piece)) {
      sum.update(piece, 0, got);
      bytes += got;
    }
    of.put("bytes", bytes);
    of.put("sha256", Peer.hex(sum.digest()));
  }

  private static void send(OutputStream to, byte[] sent) {
    try {
      to.write(sent);
    } catch (IOException error) {
      // A refused port takes no bytes. Its error stream says so.
    }
  }
}
