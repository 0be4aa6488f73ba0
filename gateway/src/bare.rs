//! The measure of this gateway: an axum server that answers each request with its own body, and does nothing else.
//!
//! For benchmarks, which compare the sockets of one run with it.

use axum::Router;
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use tokio::net::TcpListener;

/// Answers `POST /` on `listener` until the process ends.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new().route("/", post(async |body: Bytes| body));
    let listener = listener.tap_io(|stream| {
        // Without it the measure would be that of delayed acknowledgements.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}
