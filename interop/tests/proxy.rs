//! The program proxy in place of the API server: a stock kubectl in front, and behind it, as the kubelet,
//! `k8s.io/cri-streaming`, or the apiserver's StreamTranslator and TunnelingHandler, which a kubelet of 1.36 has too.
//! `interop/run` also runs all other suites with the proxy in front of the built-in node.

use std::process::Stdio;

use kubestream_interop::matrix::{self, Foreign, Over, Proof, Role, client_of, hop_before, server_for};
use kubestream_interop::{Ended, Input, Peer, Scratch, digest, echo, kubectl, pattern, run, runs, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// Proves cases of [`clusters`]: of the client, and of the servers.
fn proves(cases: &str) -> Proof {
    over(cases, Over::SpdyV4, Over::WebSocketV5, Over::Fallback)
}

fn over(cases: &str, spdy: Over, websocket: Over, falling_back: Over) -> Proof {
    let between = |role: Role| role.through("`proxy --kubelet`");
    let kubectl = |behind: &str| between(client_of(behind));
    let proof = matrix::proves(cases).with(Foreign::Kubectl, kubectl("cri-streaming"), [spdy, falling_back]);
    let proof = proof.with(Foreign::Kubectl, kubectl("the apiserver's handlers"), [websocket]);
    let proof = proof.with(Foreign::CriStreaming, between(server_for("kubectl")), [spdy]);
    proof.with(Foreign::Apiserver, hop_before("cri-streaming").through("`proxy --kubelet`"), [websocket])
}

/// The servers behind the proxy, with the transport with which kubectl begins.
fn kubelets() -> [(&'static str, bool, Peer); 3] {
    [
        ("cri-streaming over SPDY", false, Peer::go("cri-server", &[])),
        ("translator over WebSocket", true, Peer::go("translator", &[])),
        // cri-streaming has no v5. kubectl then asks for SPDY, and must find it there.
        ("cri-streaming, falling back", true, Peer::go("cri-server", &[])),
    ]
}

struct Cluster {
    proxy: Peer,
    scratch: Scratch,
    websockets: bool,
}

impl Cluster {
    fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(kubectl());
        command.arg(format!("--server={}", self.proxy.address())).args(arguments);
        command.env_clear().env("HOME", self.scratch.path()).env("PATH", std::env::var("PATH").unwrap_or_default());
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websockets.to_string());
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", self.websockets.to_string());
        command
    }

    async fn exec(&self, input: Input, script: &str) -> Ended {
        let stdin = if matches!(input, Input::Null) { "--stdin=false" } else { "--stdin" };
        run(self.kubectl(["exec", stdin, "demo", "--", "sh", "-c", script]), input).await
    }
}

fn clusters() -> impl Iterator<Item = (&'static str, Cluster)> {
    kubelets().into_iter().map(|(name, websockets, kubelet)| {
        let proxy = kubelet.behind_proxy("--kubelet", &[]);
        (name, Cluster { proxy, scratch: Scratch::new(), websockets })
    })
}

#[tokio::test]
async fn outputs_stay_apart_and_exit_codes_arrive() {
    let _proof = proves("outputs apart; exit codes 0, 7, 255");
    for (name, cluster) in clusters() {
        for code in [0, 7, 255] {
            let ended = cluster.exec(Input::Null, &format!("echo out; echo err >&2; exit {code}")).await;
            assert_eq!((ended.code, &ended.stdout[..]), (Some(code), &b"out\n"[..]), "{name}: {}", ended.stderr);
            assert!(ended.stderr.contains("err\n"), "{name}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_the_same() {
    let _proof = proves("10 MB there and back");
    for (name, cluster) in clusters() {
        let sent = pattern(10_000_000);
        let ended = cluster.exec(Input::Bytes(sent.clone()), "cat").await;
        assert_eq!((ended.code, digest(&ended.stdout)), (Some(0), digest(&sent)), "{name}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn the_tail_of_a_fast_exit_is_never_lost() {
    let _proof = proves("3 MB and exit 7");
    for (name, cluster) in clusters() {
        for number in 0..runs(5) {
            let ended = cluster.exec(Input::Null, "head -c 3000000 /dev/zero; exit 7").await;
            assert_eq!(
                (ended.code, ended.stdout.len()),
                (Some(7), 3_000_000),
                "{name}, run {number}: {}",
                ended.stderr
            );
        }
    }
}

#[tokio::test]
async fn what_is_attached_to_says_each_line_on_both_outputs() {
    let _proof = proves("attach -i");
    for (name, cluster) in clusters() {
        let ended = run(cluster.kubectl(["attach", "-i", "demo"]), Input::Bytes(b"hello\n".to_vec())).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(0), &b"out:hello\n"[..]), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains("err:hello\n"), "{name}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn files_are_copied_there_and_back() {
    let _proof = proves("cp of 3 MB there and back");
    for (name, cluster) in clusters() {
        let (near, there) = (cluster.scratch.file("near"), cluster.scratch.file("there"));
        let back = cluster.scratch.file("back");
        std::fs::write(&near, pattern(3_000_000)).expect("a file");
        let far = format!("demo:{}", there.display());
        for (from, to) in [(near.to_str().expect("a path"), &far[..]), (&far[..], back.to_str().expect("a path"))] {
            let ended = run(cluster.kubectl(["cp", from, to]), Input::Null).await;
            assert_eq!(ended.code, Some(0), "{name}, {from} to {to}: {}", ended.stderr);
        }
        assert_eq!(digest(&std::fs::read(back).expect("a file")), digest(&pattern(3_000_000)), "{name}");
    }
}

#[tokio::test]
async fn a_pod_that_does_not_exist_is_an_error_that_names_it() {
    let _proof = proves("a pod that does not exist");
    for (name, cluster) in clusters() {
        let ended = run(cluster.kubectl(["exec", "nope", "--", "true"]), Input::Null).await;
        assert_eq!(ended.code, Some(1), "{name}");
        assert!(ended.stderr.contains("pods \"nope\" not found"), "{name}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn ports_are_forwarded() {
    let _proof =
        over("20 connections at a time of 1 MB; half-close", Over::Forward, Over::Tunnel, Over::ForwardFallback);
    let port = echo().await;
    for (name, cluster) in clusters() {
        let forwards = format!(":{port}");
        let mut command = cluster.kubectl(["port-forward", "--address", "127.0.0.1", "pod/demo", &forwards]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut kubectl = command.spawn().expect("kubectl");
        let mut lines = BufReader::new(kubectl.stdout.take().expect("stdout is a pipe")).lines();
        let line = within("where kubectl listens", lines.next_line()).await.expect("text").expect("a line");
        let local =
            line.strip_prefix("Forwarding from ").and_then(|rest| rest.split_once(" -> ")).expect("an address").0;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let sent = pattern(1_000_000);
        let ask = async || {
            let (mut reads, mut writes) = TcpStream::connect(local).await.expect("kubectl listens").into_split();
            let mut back = Vec::new();
            let sending = async {
                writes.write_all(&sent).await.expect("all is sent");
                writes.shutdown().await.expect("and its end");
            };
            let (_, read) = within("an echo", async { tokio::join!(sending, reads.read_to_end(&mut back)) }).await;
            read.expect("an echo");
            assert_eq!(digest(&back), digest(&sent), "{name}");
        };
        ask().await;
        futures_util::future::join_all((0..20).map(|_| ask())).await;
    }
}

/// The token comes in the header or, from a browser that cannot set it, in the subprotocol. The backend must never see
/// it.
#[tokio::test]
async fn a_client_has_to_know_the_token() {
    let _proof = matrix::proves("a client has to know the token").with(
        Foreign::Bytes,
        client_of("`proxy --token`"),
        [Over::Http, Over::WebSocketV5],
    );
    let proxy = Peer::node().behind_proxy("--backend", &["--token", "s3cret"]);
    let address = proxy.address().trim_start_matches("http://").to_owned();
    let ask = async |lines: &str| {
        let mut tcp = TcpStream::connect(&address).await.expect("the proxy");
        let head = format!(
            "GET /api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true HTTP/1.1\r\nHost: {address}\r\n\
            Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        tcp.write_all(head.as_bytes()).await.expect("a request");
        let mut answer = [0; 12];
        within("an answer", tcp.read_exact(&mut answer)).await.expect("an answer");
        String::from_utf8(answer[9..].to_vec()).expect("a status")
    };
    let (right, wrong) = ("czNjcmV0", "d3Jvbmc");
    let offer = |token: &str| {
        format!("Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io\r\n")
    };
    let v5 = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    assert_eq!(ask(v5).await, "401");
    assert_eq!(ask(&format!("Authorization: Bearer wrong\r\n{v5}")).await, "401");
    assert_eq!(ask(&offer(wrong)).await, "401");
    assert_eq!(ask(&format!("Authorization: Bearer s3cret\r\n{v5}")).await, "101");
    assert_eq!(ask(&offer(right)).await, "101");
}

/// The connection to the kubelet: a certificate of another authority or for another name ends it before a request is
/// sent, unless --insecure-skip-tls-verify is given.
#[tokio::test]
async fn a_kubelet_is_believed_by_its_certificate_alone() {
    const CASE: &str = "a server is believed by its certificate alone, unless --insecure-skip-tls-verify";
    let tls = |role: Role| role.through("`proxy --kubelet https://…`");
    let proof = matrix::proves(CASE).with(Foreign::CriStreaming, tls(server_for("kubectl")), [Over::SpdyV4]);
    let both = [Over::SpdyV4, Over::Fallback];
    let _proof = proof.with(Foreign::Kubectl, tls(client_of("cri-streaming")), both);
    let scratch = Scratch::new();
    let its = scratch.path().join("its.pem");
    let (its, other) =
        (its.to_str().expect("a path"), concat!(env!("CARGO_MANIFEST_DIR"), "/data/other-authority.pem"));

    let cases: [(&str, &[&str], _); 5] = [
        ("127.0.0.1", &["--certificate-authority", its], Ok(())),
        ("localhost", &["--certificate-authority", its], Err("certificate not valid for name \"localhost\"")),
        ("127.0.0.1", &["--certificate-authority", other], Err("invalid peer certificate: UnknownIssuer")),
        ("localhost", &["--insecure-skip-tls-verify"], Ok(())),
        ("127.0.0.1", &[], Err("https requires --certificate-authority")),
    ];
    for (name, arguments, expected) in cases {
        let proxy = Peer::go("cri-server", &["-tls", its]).by_name(name).behind_proxy("--kubelet", arguments);
        let mut cluster = Cluster { proxy, scratch: Scratch::new(), websockets: true };
        for websockets in [true, false] {
            cluster.websockets = websockets;
            let ended = cluster.exec(Input::Null, "echo out; exit 7").await;
            let seen = format!("{name} {arguments:?}: {:?} {}", ended.code, ended.stderr);
            match expected {
                Ok(()) => assert!(ended.code == Some(7) && ended.stdout == b"out\n", "{seen}"),
                Err(why) => {
                    assert!(ended.code == Some(1) && ended.stdout.is_empty() && ended.stderr.contains(why), "{seen}");
                }
            }
        }
    }
}

/// A client on one transport gets the backend's answer on the other, and no 101 before it. A redirect is not passed on
/// (apiserver's TestStreamTranslator_BlockRedirects and TestTunnelingHandler_UpstreamSPDYServerErrorPropagated).
#[tokio::test]
async fn a_refusal_arrives_through_a_translation() {
    let _proof = matrix::proves("a refusal arrives through a translation, and a redirect does not").with(
        Foreign::Bytes,
        client_of("`proxy --translate`"),
        [Over::Http],
    );
    let websocket = "GET /api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true HTTP/1.1\r\nHost: proxy\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
    let spdy = "POST /api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true HTTP/1.1\r\nHost: proxy\r\n\
        Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\
        Content-Length: 0\r\n\r\n";
    let forbidden = "HTTP/1.1 403 Forbidden\r\nContent-Length: 14\r\n\r\nnot to anybody";
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n";
    for (to, ask, upgrade) in [("spdy", websocket, "SPDY/3.1"), ("websocket", spdy, "websocket")] {
        for (answer, status, says) in
            [(forbidden, "403", "not to anybody"), (elsewhere, "502", "did not upgrade the connection")]
        {
            let backend = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let proxy = Peer::proxy(
                "--backend",
                &format!("http://{}", backend.local_addr().expect("one")),
                &["--translate", to, "--allow-host", "proxy"],
            );
            let refuse = async {
                let (mut tcp, _) = backend.accept().await.expect("the proxy");
                let (mut head, mut lines) = (String::new(), BufReader::new(&mut tcp).lines());
                while let Some(line) = lines.next_line().await.expect("a head").filter(|line| !line.is_empty()) {
                    head += &format!("{}\n", line.to_lowercase());
                }
                tcp.write_all(answer.as_bytes()).await.expect("an answer");
                head
            };
            let asking = async {
                let mut tcp =
                    TcpStream::connect(proxy.address().trim_start_matches("http://")).await.expect("the proxy");
                tcp.write_all(ask.as_bytes()).await.expect("a request");
                let mut said = String::new();
                tcp.read_to_string(&mut said).await.expect("an answer, and the end");
                said
            };
            let (head, said) = within("an answer", async { tokio::join!(refuse, asking) }).await;
            assert!(head.contains(&format!("upgrade: {}\n", upgrade.to_lowercase())), "{to}: {head}");
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(says), "{to}: {said}");
            assert!(!said.contains("evil") && !said.contains("101"), "{to}: {said}");
        }
    }
}
