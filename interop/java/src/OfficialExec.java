import io.kubernetes.client.Exec;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Set;

/**
 * Exec over WebSocket by Kubernetes' client for Java, through its own Exec only. Options, outputs, statuses and the
 * result are those of exec.mjs: {@code OfficialExec --server URL --pod NAME [options] -- COMMAND ARGUMENTS...}
 *
 * <p>In addition, --protocol LIST replaces the library's Sec-WebSocket-Protocol header.
 */
public final class OfficialExec {
  private static final String USAGE = "OfficialExec --server URL --pod NAME [options] -- COMMAND ARGUMENTS...";

  public static void main(String[] arguments) throws Exception {
    var options = Official.options();
    options.put("container", "main");
    options.put("resize", null);
    Peer peer = new Peer(USAGE, arguments, options, Set.of("stdin", "tty"));
    if (peer.get("server") == null || peer.get("pod") == null || peer.rest.isEmpty()) {
      Peer.fail(USAGE, 2);
    }
    peer.result.put("exitCode", -1);
    peer.result.put("protocol", null);
    peer.result.put("error", null);
    Official official = new Official(peer.get("server"), peer.get("protocol"));
    boolean tty = peer.has("tty");
    Process process = new Exec(official.api)
        .newExecutionBuilder(peer.get("namespace"), peer.get("pod"), peer.rest.toArray(String[]::new))
        .setContainer(peer.get("container")).setStdin(peer.has("stdin")).setStderr(!tty).setTty(tty)
        .setOnUnhandledError(error -> peer.result.put("error", error.toString())).execute();
    // This must happen at once: after the connection has ended, the library returns no stream, even if bytes had come
    // on it.
    InputStream stdout = process.getInputStream();
    InputStream stderr = process.getErrorStream();
    Thread out = Peer.background(() -> Peer.copy(stdout, System.out));
    Thread err = Peer.background(() -> Peer.copy(stderr, System.err));
    if (peer.get("resize") != null) {
      Peer.background(() -> resize((Exec.ExecProcess) process, peer.get("resize")));
    }
    if (peer.has("stdin")) {
      Peer.background(() -> feed(peer, process.getOutputStream()));
    }
    int code = process.waitFor();
    out.join();
    err.join();
    official.ended();
    peer.result.put("exitCode", code < 0 ? -1 : code);
    peer.result.put("protocol", official.protocol);
    peer.end(code < 0 ? 1 : code);
  }

  private static void feed(Peer peer, OutputStream to) throws IOException {
    try {
      System.in.transferTo(to);
      to.close();
    } catch (IOException error) {
      // A command may leave its stdin unread. This does not go to stderr, which is the command's.
      peer.result.put("error", "write: " + error);
    }
  }

  private static void resize(Exec.ExecProcess process, String sizes) throws Exception {
    for (String size : sizes.split(",")) {
      String[] sides = size.split("x");
      process.resize(Integer.parseInt(sides[0]), Integer.parseInt(sides[1]));
      Thread.sleep(300);
    }
  }
}
