//! A line becomes a reply, whatever it says: counted, logged when it failed, and answered even when we do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wess_schemas::ErrorCode;
use wess_schemas::seed::SeedReply;

use super::lines::Line;
use super::request::{Command, Request};
use super::{binaries, run};
use crate::admission::held;
use crate::app::App;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// Files read and stored at once: each may be in memory as a whole.
const MAX_LOADS: usize = 4;

/// A reply on its way, a line with its end.
pub type Reply = BoxFuture<'static, Bytes>;

/// What answers. Cheap to clone.
#[derive(Clone)]
pub struct Commands(Arc<Inner>);

struct Inner {
    app: Arc<App>,
    loads: Semaphore,
}

impl Commands {
    /// Asks by way of `app`.
    pub fn new(app: Arc<App>) -> Self {
        let loads = Semaphore::new(MAX_LOADS);
        Self(Arc::new(Inner { app, loads }))
    }

    /// Begins to answer a line. The permit, if the line needs one, is given back when the reply is ready.
    pub fn begin(&self, line: Line, permit: Option<OwnedSemaphorePermit>) -> Reply {
        let request = match line.and_then(|line| Request::parse(&line)) {
            Ok(request) => request,
            Err(refused) => return ready(finish(&self.0.app.metrics, None, Err(refused))).boxed(),
        };
        let (command, inner) = (request.command(), self.0.clone());
        match request {
            Request::Execute(execute) => {
                self.answer(
                    command,
                    permit,
                    async move { run::execute(&inner.app, execute).await },
                )
            }
            Request::Chain(chain) => {
                self.answer(
                    command,
                    permit,
                    async move { run::chain(&inner.app, chain).await },
                )
            }
            Request::Load(load) => self.answer(command, permit, async move {
                // The semaphore is never closed.
                let _turn = inner.loads.acquire().await;
                done(&binaries::load(&inner.app, load).await?)
            }),
            Request::List => self.answer(command, permit, async move {
                done(&binaries::list(&inner.app).await?)
            }),
            Request::Unload(unload) => self.answer(command, permit, async move {
                done(&binaries::unload(&inner.app, unload).await?)
            }),
        }
    }

    /// A command that panics is answered too, and takes nobody else's with it.
    fn answer(
        &self,
        command: Command,
        permit: Option<OwnedSemaphorePermit>,
        work: impl Future<Output = Result<Bytes, Problem>> + Send + 'static,
    ) -> Reply {
        let inner = self.0.clone();
        async move {
            let answer = AssertUnwindSafe(work).catch_unwind().await;
            let answer =
                answer.unwrap_or_else(|_| Err(Problem::new(ErrorCode::Internal, "the gateway failed")));
            drop(permit);
            finish(&inner.app.metrics, Some(command), answer)
        }
        .boxed()
    }
}

/// The reply to what was done.
pub fn done<T: Serialize>(data: &T) -> Result<Bytes, Problem> {
    line(&SeedReply::done(data))
        .map_err(|error| Problem::new(ErrorCode::Internal, "cannot write the reply").because(&error))
}

fn line(reply: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    const USUAL_BYTES: usize = 192;
    let mut line = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut line, reply)?;
    line.push(b'\n');
    Ok(line.into())
}

fn finish(metrics: &Metrics, command: Option<Command>, answer: Result<Bytes, Problem>) -> Bytes {
    let command = command.map_or("none", Command::as_str);
    match answer {
        Ok(reply) => {
            metrics.socket_request(command, None);
            reply
        }
        Err(problem) => {
            metrics.socket_request(command, Some(problem.code()));
            log(command, &problem);
            let (body, room) = problem.into_parts();
            // Strings and numbers have no way to fail at being written.
            held(line(&SeedReply::<()>::failed(body)).unwrap_or_default(), room)
        }
    }
}

/// Faults of ours are warnings; what a client or a guest did wrong is not.
fn log(command: &str, problem: &Problem) {
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(command, code = %problem.code(), cause = problem.cause(), "{}", problem.message())
        };
    }
    match problem.code() {
        ErrorCode::Internal | ErrorCode::Unavailable => log!(warn),
        _ => log!(info),
    }
}
