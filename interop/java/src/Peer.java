import com.google.gson.GsonBuilder;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What all Java peers share: arguments, results, statuses, the watchdog.
 *
 * <p>Options are --NAME VALUE, or --NAME alone for flags. Whatever follows is the rest, with or without --.
 */
final class Peer {
  /** The options of every peer. */
  private static final Map<String, String> DEFAULTS = Map.of("watchdog", "120");

  private final Map<String, String> options = new HashMap<>(DEFAULTS);
  final List<String> rest;
  /** The result that is printed if the watchdog ends the process. */
  final Map<String, Object> result = new LinkedHashMap<>();

  /**
   * Reads the arguments and starts the watchdog.
   *
   * @param defaults the options that take a value, each with its default; null means no default
   */
  Peer(String usage, String[] arguments, Map<String, String> defaults, Set<String> flags) {
    options.putAll(defaults);
    int at = 0;
    while (at < arguments.length && arguments[at].startsWith("--")) {
      String name = arguments[at++].substring(2);
      if (name.isEmpty()) {
        break;
      }
      if (flags.contains(name)) {
        options.put(name, "");
      } else if (options.containsKey(name) && at < arguments.length) {
        options.put(name, arguments[at++]);
      } else {
        fail(usage, 2);
      }
    }
    rest = List.copyOf(Arrays.asList(arguments).subList(at, arguments.length));
    String seconds = get("watchdog");
    background(() -> {
      Thread.sleep((long) (Double.parseDouble(seconds) * 1000));
      String why = "watchdog: still running after " + seconds + " s";
      result.put("error", why);
      System.err.println(why);
      end(124);
    });
  }

  String get(String option) {
    return options.get(option);
  }

  boolean has(String flag) {
    return options.containsKey(flag);
  }

  /** Ends the process when stdin ends. */
  void guard() {
    background(() -> {
      while (System.in.read() >= 0) {}
      Runtime.getRuntime().halt(0);
    });
  }

  /** One line of JSON on stdout. */
  static synchronized void print(Map<String, ?> value) {
    System.out.println(json(value));
    System.out.flush();
  }

  /** Ends the process, even if threads still wait. The result goes to the file of --result. */
  synchronized void end(int status) {
    if (get("result") != null) {
      try {
        Files.writeString(Path.of(get("result")), json(result) + "\n");
      } catch (IOException error) {
        System.err.println(error);
      }
    }
    System.out.flush();
    System.err.flush();
    Runtime.getRuntime().halt(status);
  }

  static void fail(String why, int status) {
    System.err.println(why);
    Runtime.getRuntime().halt(status);
  }

  /** Copies bytes without decoding them. */
  static void copy(InputStream from, PrintStream to) throws IOException {
    from.transferTo(to);
    to.flush();
  }

  /** Runs something that may fail on a daemon thread. */
  static Thread background(Work work) {
    Thread thread = new Thread(() -> {
      try {
        work.run();
      } catch (Exception error) {
        error.printStackTrace();
        fail("a thread has failed", 1);
      }
    });
    thread.setDaemon(true);
    thread.start();
    return thread;
  }

  interface Work {
    void run() throws Exception;
  }

  /** Byte i of the pattern is i mod 251. */
  static byte[] pattern(int length) {
    byte[] all = new byte[length];
    for (int i = 0; i < length; i++) {
      all[i] = (byte) (i % 251);
    }
    return all;
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException error) {
      throw new IllegalStateException(error);
    }
  }

  static String hex(byte[] digest) {
    return HexFormat.of().formatHex(digest);
  }

  private static String json(Object value) {
    return new GsonBuilder().serializeNulls().disableHtmlEscaping().create().toJson(value);
  }
}
