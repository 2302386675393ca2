//! What came before a session ends is delivered before the end takes effect: a client's stdin, and a server's output
//! that breaks off. The tests play the peers here, because no library ends like this, but every network may.

use kubestream::exec::{ExecRequest, Streams};
use kubestream::protocol::Subprotocol;
use kubestream_interop::matrix::{Foreign, NODE, Over, client_of, proves, server_for};
use kubestream_interop::{Input, Peer, Scratch, Spoken, app, digest, gone, pattern, run, within, written};
use tokio::net::TcpListener;
use tokio::process::Command;

const PIECE: usize = 30_000;

fn url(server: &str, script: &str) -> String {
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let query = ExecRequest::new(["sh", "-c", script], streams).to_query();
    format!("{server}/api/v1/namespaces/default/pods/demo/exec?{query}")
}

/// Before v5 this is the only way to end stdin, and with v5 it may directly follow the end.
#[tokio::test]
async fn stdin_that_came_before_a_close_reaches_the_command() {
    let _proof = proves("5 B, 100 kB and 5 MB of stdin before a Close").with(
        Foreign::Bytes,
        client_of(NODE),
        [Over::WebSocketV1, Over::WebSocketV4, Over::WebSocketV5],
    );
    let node = Peer::node();
    for protocol in [Subprotocol::V1, Subprotocol::V4, Subprotocol::V5] {
        for size in [5, 100_000, 5_000_000] {
            let (scratch, sent) = (Scratch::new(), pattern(size));
            // After the end of stdin, the command still needs time to act on it.
            let script = format!("cat >{0}/part && sleep 0.2 && mv {0}/part {0}/whole", scratch.path().display());
            let mut client = Spoken::client(&url(node.address(), &script), protocol).await;
            for piece in sent.chunks(PIECE) {
                client.says(0, piece).await;
            }
            if protocol == Subprotocol::V5 {
                client.says(0xff, &[0]).await;
            }
            client.closes().await;
            assert_eq!(digest(&written(&scratch.file("whole")).await), digest(&sent), "{protocol:?}");
            within("the server's end", client.to_the_end()).await;
        }
    }
}

/// The command must not take this for the end of a whole stdin. The command here ignores its SIGHUP, so that it would
/// act on such an end.
#[tokio::test]
async fn a_client_that_is_lost_has_not_ended_its_stdin() {
    let over = [Over::WebSocketV1, Over::WebSocketV4, Over::WebSocketV5];
    let _proof = proves("stdin that breaks off is no end of it").with(Foreign::Bytes, client_of(NODE), over);
    let node = Peer::node();
    for protocol in [Subprotocol::V1, Subprotocol::V4, Subprotocol::V5] {
        let scratch = Scratch::new();
        let path = scratch.path().display();
        let script = format!("trap '' HUP; echo $$ >{path}/pid; cat >{path}/part && mv {path}/part {path}/whole");
        let mut client = Spoken::client(&url(node.address(), &script), protocol).await;
        for piece in pattern(100_000).chunks(PIECE) {
            client.says(0, piece).await;
        }
        let process = scratch.pid("pid").await;
        client.breaks_off();
        gone(process).await;
        assert!(!scratch.file("whole").exists(), "{protocol:?}: what had come was taken for all there is");
    }
}

/// Starts the program `exec` against a server that a test plays.
async fn exec(listener: &TcpListener) -> Command {
    let mut command = Command::new(app("exec"));
    command.args(["--server", &format!("http://{}", listener.local_addr().expect("an address"))]);
    command.args(["--transport", "websocket", "--", "true"]);
    command
}

/// For a server that says goodbye without a status, and for one that disappears after its status, which over WebSocket
/// is its last message.
#[tokio::test]
async fn what_has_come_is_shown_before_the_end_is_acted_on() {
    let role = server_for("`exec`");
    let cases = "output and no status; output and exit code 7, and no Close";
    let _proof = proves(cases).with(Foreign::Bytes, role, [Over::WebSocketV5]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // More bytes than an unread pipe holds.
    let sent = pattern(500_000);
    let seven = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    for (status, code, said) in
        [(None, 1, "error: the session ended, but the server sent no status"), (Some(seven), 7, "")]
    {
        let server = async {
            let mut server = Spoken::server(&listener).await;
            for piece in sent.chunks(PIECE) {
                server.says(1, piece).await;
            }
            if let Some(status) = status {
                server.says(3, status).await;
            } else {
                server.closes().await;
                server.hears(0x88).await;
            }
        };
        let (ended, ()) = tokio::join!(run(exec(&listener).await, Input::Null), within("the client's answer", server));
        assert_eq!((ended.code, digest(&ended.stdout)), (Some(code), digest(&sent)), "{}", ended.stderr);
        assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
    }
}
