//! The compile threads: the one place where modules are compiled, away from every thread that answers calls.
//!
//! Run at lower priority, take one module each at a time and let few wait. Small modules have a thread of their own: what
//! takes milliseconds does not wait behind what takes half a minute. A compiler that panics fails its module only.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;

use super::stats::RegistryStats;
use crate::guest::{Compiler, Metering, ModuleRefused};

/// Up to which a module of so many bytes is a small one.
const SMALL_BYTES: usize = 256 << 10;
/// Modules that may wait for each thread. Each holds its bytes; past this the answer is `overloaded`.
const MAX_WAITING: usize = 64;
/// Cranelift recurses over what a guest nests.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// How much nicer than the threads that answer calls.
const NICENESS: i32 = 10;

/// The way to the compile threads, which end when the last way to them is dropped.
pub(super) struct CompileQueue {
    small: mpsc::Sender<Job>,
    large: mpsc::Sender<Job>,
}

struct Job {
    wasm: Bytes,
    metering: Metering,
    compiled: oneshot::Sender<Result<Vec<u8>, ErrorBody>>,
}

impl CompileQueue {
    /// Starts the threads.
    pub(super) fn start(compiler: Compiler, stats: RegistryStats) -> io::Result<Self> {
        let compile = move |job: &Job| {
            stats.compilations.inc();
            compiler.compile(&job.wasm, job.metering)
        };
        Self::start_with(MAX_WAITING, compile)
    }

    fn start_with(
        room: usize,
        compile: impl Fn(&Job) -> Result<Vec<u8>, ModuleRefused> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let start = |name: &str| {
            let (jobs, queue) = mpsc::channel(room);
            let compile = compile.clone();
            thread::Builder::new()
                .name(name.into())
                .stack_size(STACK_BYTES)
                .spawn(|| work(queue, compile))?;
            io::Result::Ok(jobs)
        };
        Ok(Self {
            small: start("wess-compile-s")?,
            large: start("wess-compile-l")?,
        })
    }

    /// Compiles, after what of its kind waits already.
    pub(super) async fn compile(&self, wasm: Bytes, metering: Metering) -> Result<Vec<u8>, ErrorBody> {
        let (compiled, result) = oneshot::channel();
        let overloaded = || {
            ErrorBody::new(
                ErrorCode::Overloaded,
                "too many modules wait to be compiled on this worker",
            )
        };
        let jobs = match wasm.len() {
            ..=SMALL_BYTES => &self.small,
            _ => &self.large,
        };
        jobs.try_send(Job {
            wasm,
            metering,
            compiled,
        })
        .map_err(|_| overloaded())?;
        result.await.unwrap_or_else(|_| Err(failed()))
    }
}

fn work(mut queue: mpsc::Receiver<Job>, compile: impl Fn(&Job) -> Result<Vec<u8>, ModuleRefused>) {
    // A compile thread that is no nicer than the others still compiles.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
    while let Some(job) = queue.blocking_recv() {
        let result = catch_unwind(AssertUnwindSafe(|| compile(&job)));
        let result = match result {
            Ok(compiled) => compiled.map_err(|refused| refusal(&refused)),
            Err(_) => Err(failed()),
        };
        // Whoever asked may have been cut.
        let _ = job.compiled.send(result);
    }
}

/// What a caller is told of a module that cannot be run here.
pub(super) fn refusal(refused: &ModuleRefused) -> ErrorBody {
    let code = match refused {
        ModuleRefused::Invalid(_) => ErrorCode::InvalidModule,
        ModuleRefused::Unsupported(_) => ErrorCode::UnsupportedModule,
    };
    ErrorBody::new(code, refused.to_string())
}

fn failed() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the compiler failed").before_guest()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A queue whose threads compile by `compile`.
    fn queue(
        compile: impl Fn(&Job) -> Result<Vec<u8>, ModuleRefused> + Clone + Send + 'static,
    ) -> CompileQueue {
        CompileQueue::start_with(1, compile).unwrap()
    }

    async fn code(queue: &CompileQueue, wasm: &'static [u8]) -> ErrorCode {
        queue
            .compile(wasm.into(), Metering::Off)
            .await
            .unwrap_err()
            .code()
    }

    #[tokio::test]
    async fn what_the_compiler_refuses_is_refused_by_its_code_and_a_panic_is_survived() {
        let queue = queue(|job| match &job.wasm[..] {
            b"invalid" => Err(ModuleRefused::Invalid("bad magic".into())),
            b"unsupported" => Err(ModuleRefused::Unsupported("threads".into())),
            b"panic" => panic!("a bug of the compiler's"),
            wasm => Ok(wasm.to_vec()),
        });
        assert_eq!(code(&queue, b"invalid").await, ErrorCode::InvalidModule);
        assert_eq!(code(&queue, b"panic").await, ErrorCode::Internal);
        assert_eq!(code(&queue, b"unsupported").await, ErrorCode::UnsupportedModule);
        assert_eq!(
            queue.compile("good".into(), Metering::Off).await.unwrap(),
            b"good"
        );
    }

    #[tokio::test]
    async fn a_small_module_does_not_wait_behind_a_large_one() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let queue = queue(move |job| {
            if job.wasm.len() > SMALL_BYTES {
                let _ = blocked.lock().unwrap().recv();
            }
            Ok(job.wasm.to_vec())
        });
        let large = Bytes::from(vec![0; SMALL_BYTES + 1]);
        let mut large = Box::pin(queue.compile(large, Metering::Off));
        let small = queue.compile("small".into(), Metering::Off);
        tokio::select! {
            biased;
            _ = &mut large => panic!("nobody has released it"),
            small = small => assert_eq!(small.unwrap(), b"small"),
        }
        release.send(()).unwrap();
        assert_eq!(large.await.unwrap().len(), SMALL_BYTES + 1);
    }

    #[tokio::test]
    async fn a_full_queue_is_overloaded_at_once() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let queue = queue(move |_| {
            let _ = blocked.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let (first, second) = (
            queue.compile("".into(), Metering::Off),
            queue.compile("".into(), Metering::Off),
        );
        let (mut first, mut second) = (Box::pin(first), Box::pin(second));
        // The first may still stand in the queue, so that the second is the one refused: one of three in any case.
        let third = async { queue.compile("".into(), Metering::Off).await };
        let refused = tokio::select! {
            biased;
            result = &mut first => result,
            result = &mut second => result,
            result = third => result,
        };
        assert_eq!(refused.unwrap_err().code(), ErrorCode::Overloaded);
        drop(release);
    }
}
