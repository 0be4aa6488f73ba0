//! The measure of all: a responder that answers each request with its own bytes, as bare as Rust allows.

use futures_util::StreamExt;

use crate::args::BenchEchoArgs;
use crate::output;

/// Answers until it is ended.
pub async fn answer(args: BenchEchoArgs) -> anyhow::Result<()> {
    let client = async_nats::connect(&args.nats).await?;
    let mut requests = client.queue_subscribe(args.subject.clone(), args.subject).await?;
    client.flush().await?;
    output::text("ready")?;
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}
