//! What gets into a log at any level: row 47 of docs/security.md.
//!
//! Holds a subscriber that keeps everything.

#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used)]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use http::Request;
use kubestream::mux::{Config, FlowControl, Multiplexer};
use kubestream::mux::{Headers, RstStatus};
use kubestream::upgrade::{self, Protocol};
use support::{accept, config, until};
use tokio::io::duplex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECRET: &str = "hunter2";

/// All spans and events as text, with all fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for &Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field} = {value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut &*self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut &*self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A session with a secret in every possible place, up to the only event that is logged.
#[tokio::test(start_paused = true)]
async fn no_token_header_or_payload_is_logged_at_any_level() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());

    let (near, far) = duplex(64 * 1024);
    let request = Request::post(format!("http://node/portForward?x={SECRET}"))
        .header("authorization", format!("Bearer {SECRET}"))
        .header("cookie", SECRET)
        .body(())
        .unwrap();
    let handshake = upgrade::Config::default();
    let (client, server) =
        tokio::join!(upgrade::connect(near, request, &[Protocol::SpdyPortForward], &handshake), async {
            upgrade::accept(far, &handshake).await?.accept(&[Protocol::SpdyPortForward]).await
        });
    // A client without windows, like Go's clients.
    let (client, driver) =
        Multiplexer::client(client.unwrap(), config(|config| config.spdy.flow_control = FlowControl::Off));
    tokio::spawn(driver);
    let (server, driver) = Multiplexer::server(server.unwrap(), Config::default());
    tokio::spawn(driver);
    let mut sending = client.open(Headers::from_iter([("name", SECRET), (SECRET, "value")])).await.unwrap();
    let unread = accept(&server).await;
    let sender = tokio::spawn(async move { while sending.send(SECRET.repeat(4096).into()).await.is_ok() {} });
    until(|| server.stats().stalled_by.is_some()).await;
    until(|| !log.0.lock().unwrap().is_empty()).await;
    unread.reset(RstStatus::INTERNAL_ERROR);
    sender.await.unwrap();

    let log = log.0.lock().unwrap();
    assert!(log.contains("an unread stream stalls the connection"), "something is logged: {log}");
    assert!(!log.contains(SECRET), "{log}");
}
