//! Serves CRI v1, as far as it is about processes and streams.
//!
//! Connects the services to their sockets. Exec, attach and port-forward answer with URLs of [`kubestream_runtime`];
//! [`streams`](crate::streams) serves the sessions at those URLs.

use std::sync::Arc;
use std::time::Duration;

use kubestream::upgrade::UpgradeError;
use kubestream_apps::printable::printable;
use kubestream_apps::stdio::complain;
use kubestream_apps::transport;
use kubestream_runtime::{RuntimeConfig, Server};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::image_service::Images;
use crate::runtime_service::Sandboxes;
use crate::store::Store;
use crate::streams::Streams;
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;

/// Serves until `stopped` is ready, then ends what it has started. `images` are names of images, each with a shell
/// command.
pub(crate) async fn serve(
    calls: UnixListener,
    connections: TcpListener,
    images: Vec<(String, String)>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(Store::new(images));
    let base = format!("http://{}", connections.local_addr()?);
    let streams = Server::new(Streams::new(Arc::clone(&store)), &base, RuntimeConfig::default())?;
    let runtime = RuntimeServiceServer::new(Sandboxes::new(Arc::clone(&store), streams.clone()));
    let images = ImageServiceServer::new(Images::new(Arc::clone(&store)));
    let incoming =
        futures_util::stream::poll_fn(move |cx| calls.poll_accept(cx).map(|call| Some(call.map(|(unix, _)| unix))));
    let grpc =
        tonic::transport::Server::builder().add_service(runtime).add_service(images).serve_with_incoming(incoming);
    let served = tokio::select! {
        served = grpc => served.map_err(Into::into),
        () = accept(connections, &streams) => Ok(()),
        () = stopped => Ok(()),
    };
    streams.stop();
    store.end(Duration::from_secs(2)).await;
    served
}

async fn accept(listener: TcpListener, streams: &Server<Streams>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    let streams = streams.clone();
                    connections.spawn(async move {
                        if let Err(error) = connection(tcp, streams).await {
                            complain(format_args!("cri: session: {}", printable(error)));
                        }
                    });
                }
                // The connection was gone before it was accepted, or there was no descriptor for it. Then the next try
                // comes soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(tcp: TcpStream, streams: Server<Streams>) -> Result<(), kubestream_runtime::Error> {
    transport::set_options(&tcp).map_err(UpgradeError::from)?;
    streams.serve(tcp).await
}
