//! `wess bench`: what this machine does, measured in one run against a bare echo behind the same nats-server.
//!
//! Leaves nothing behind: processes, folder and modules go with the run.

mod bare;
mod burner;
mod cases;
mod cold;
mod echo;
mod flood;
mod goals;
mod guests;
mod large;
mod load;
mod many;
mod memory;
mod metrics;
mod modules;
mod overload;
mod processes;
mod report;
mod reuse;
mod rig;
mod scaling;
mod serve;
mod socket;
mod stream;
mod suspended;
mod tail;
mod turns;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wess_schemas::subject::Endpoint;
use wess_schemas::{ModuleName, Reference};
use wess_worker::guest::BarePlugin;

use crate::args::{BenchArgs, BenchAxumArgs, BenchEchoArgs, Output, Peer, Place, Scenario};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::over;

use cases::{Field, Plan, Responder};
use cold::ColdReport;
use many::ManyReport;
use report::{Report, Table};
use rig::{ECHO, Rig};
use serve::HttpReport;
use socket::SocketReport;

/// `wess bench`.
pub fn run(args: BenchArgs) -> ExitCode {
    finish(args.output, block_on(measure_and_print(args)))
}

/// `wess bench-echo`, which [`run`] starts.
pub fn echo(args: BenchEchoArgs) -> ExitCode {
    finish(Output::Human, block_on(echo::answer(args)))
}

/// `wess bench-axum`, which [`run`] starts. As many threads as a server has that nobody has told.
pub fn axum(args: BenchAxumArgs) -> ExitCode {
    let served = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(socket::axum(args)));
    finish(Output::Human, served)
}

/// One thread: a generator on several is slower, and disturbs what it measures.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn finish(output: Output, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return Exit::Done.into();
    };
    let fault = error
        .downcast::<Fault>()
        .unwrap_or_else(|error| Fault::local(Exit::Internal, format!("{error:#}")));
    fault.print(output);
    fault.exit().into()
}

async fn measure_and_print(args: BenchArgs) -> anyhow::Result<()> {
    tokio::select! {
        printed = async {
            match args.scenario {
                Scenario::Calls => print(&args, &measure(&args).await?, Report::text, Report::markdown),
                Scenario::Socket => {
                    let report = measure_socket(&args).await?;
                    print(&args, &report, SocketReport::text, SocketReport::markdown)
                }
                Scenario::Cold => {
                    let report = measure_cold(&args).await?;
                    print(&args, &report, ColdReport::text, ColdReport::markdown)
                }
                Scenario::Many => {
                    let report = measure_many(&args).await?;
                    print(&args, &report, ManyReport::text, ManyReport::markdown)
                }
                Scenario::Http => {
                    let report = measure_http(&args).await?;
                    print(&args, &report, HttpReport::text, HttpReport::markdown)
                }
                Scenario::Guests => {
                    let measure = async |bar: ProgressBar| guests::measure(&args, || bar.inc(1)).await;
                    show(&args, args.rounds * guests::COUNT, measure).await
                }
                Scenario::Scaling => {
                    let measure = async |bar: ProgressBar| scaling::measure(&args, || bar.inc(1)).await;
                    show(&args, args.rounds * scaling::COUNT, measure).await
                }
                Scenario::Tail => {
                    let measure = async |bar: ProgressBar| tail::measure(&args, || bar.inc(1)).await;
                    show(&args, args.rounds * tail::COUNT, measure).await
                }
                Scenario::Reuse => {
                    let measure = async |bar: ProgressBar| reuse::measure(&args, || bar.inc(1)).await;
                    show(&args, args.rounds * reuse::COUNT, measure).await
                }
                Scenario::Overload => {
                    let measure = async |bar: ProgressBar| overload::measure(&args, || bar.inc(1)).await;
                    show(&args, overload::count(&args), measure).await
                }
                Scenario::Memory => {
                    let measure = async |bar: ProgressBar| memory::measure(&args, || bar.inc(1)).await;
                    show(&args, memory::count(&args), measure).await
                }
            }
        } => printed,
        // Dropping what is underway ends the processes and removes the folder.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

/// Measures a scenario that is one table, in so many steps, and prints it.
async fn show<const N: usize, R: Table<N> + Serialize>(
    args: &BenchArgs,
    steps: u64,
    measure: impl AsyncFnOnce(ProgressBar) -> anyhow::Result<R>,
) -> anyhow::Result<()> {
    let bar = bar(steps)?;
    let report = measure(bar.clone()).await?;
    bar.finish_and_clear();
    print(args, &report, R::text, R::markdown)
}

fn print<R: Serialize>(
    args: &BenchArgs,
    report: &R,
    text: fn(&R) -> String,
    markdown: fn(&R) -> String,
) -> anyhow::Result<()> {
    match args.output {
        Output::Json => output::json(report)?,
        Output::Human if args.markdown => output::text(&markdown(report))?,
        Output::Human => output::text(&text(report))?,
    }
    Ok(())
}

fn bar(steps: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {eta}")?;
    Ok(ProgressBar::new(steps).with_style(style))
}

async fn measure_socket(args: &BenchArgs) -> anyhow::Result<SocketReport> {
    let bar = bar(args.rounds * socket::count())?;
    let report = socket::measure(args, || bar.inc(1)).await?;
    bar.finish_and_clear();
    Ok(report)
}

async fn measure_cold(args: &BenchArgs) -> anyhow::Result<ColdReport> {
    let bar = bar(cold::count(args))?;
    let report = cold::measure(args, || bar.inc(1)).await?;
    bar.finish_and_clear();
    Ok(report)
}

async fn measure_many(args: &BenchArgs) -> anyhow::Result<ManyReport> {
    let bar = bar(many::count(args))?;
    let report = many::measure(args, || bar.inc(1)).await?;
    bar.finish_and_clear();
    Ok(report)
}

async fn measure_http(args: &BenchArgs) -> anyhow::Result<HttpReport> {
    let bar = bar(args.rounds * serve::count(args))?;
    let report = serve::measure(args, || bar.inc(1)).await?;
    bar.finish_and_clear();
    Ok(report)
}

async fn measure(args: &BenchArgs) -> anyhow::Result<Report> {
    let bar = bar(cases::count() + 2)?;
    bar.set_message("starting");
    let mut rig = Rig::start(args).await?;
    let idle = usage::memory(rig.worker.pid());
    bar.inc(1);
    bar.set_message("calling");
    let cases = measure_calls(&rig, args, &bar).await?;
    bar.set_message("storing and restarting");
    let modules = if rig.owns_server() {
        let (restarted, cached) = modules::measure(rig, args.modules()).await?;
        rig = restarted;
        Some(cached)
    } else {
        None
    };
    rig.stop().await?;
    bar.finish_and_clear();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Report {
        cores,
        goals: cases::goals(&cases),
        cases,
        idle,
        modules,
    })
}

async fn measure_calls(rig: &Rig, args: &BenchArgs, bar: &ProgressBar) -> anyhow::Result<Vec<cases::Case>> {
    let client = rig.connect().await?;
    let transport = over(client.clone(), rig.subjects());
    let name: ModuleName = format!("wess-bench-{}", std::process::id()).parse()?;
    modules::store(transport.as_ref(), name.clone(), 0).await?;
    let module = Reference::Latest(name);
    let subject = rig
        .subjects()
        .endpoint(&Endpoint::InvokeRaw(module.clone(), None));
    let field = Field {
        echo: Responder {
            subject: ECHO.into(),
            answer: <[u8]>::to_vec,
            pid: Some(rig.echo.pid()),
        },
        worker: Responder {
            subject: subject.into(),
            answer: <[u8]>::to_ascii_uppercase,
            pid: Some(rig.worker.pid()),
        },
        bare: BarePlugin::new(&modules::upper(0)?)?,
        peers: args.peers.iter().map(peer).collect::<anyhow::Result<_>>()?,
        nats_pid: rig.nats_pid(),
    };
    let plan = Plan {
        total: Duration::from_secs(args.seconds),
        rounds: args.rounds,
    };
    let cases = cases::measure(client, &field, plan, || bar.inc(1)).await;
    transport.delete(module).await?;
    cases
}

fn peer(peer: &Peer) -> anyhow::Result<(String, Responder)> {
    let Place::Subject(subject) = &peer.place else {
        let text = format!("--scenario calls asks over NATS: where is {}?", peer.name);
        return Err(Fault::local(Exit::Config, text).into());
    };
    let responder = Responder {
        subject: subject.as_str().into(),
        answer: <[u8]>::to_ascii_uppercase,
        pid: peer.pid,
    };
    Ok((peer.name.clone(), responder))
}
