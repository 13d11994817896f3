//! `holdfast standalone`: a site from its start to a clean stop.

use std::io::IsTerminal;
use std::time::Duration;

use api::code;
use api::types::{Recovered, Serving};
use machine::{OnLoss, Options, RecoverOptions, RecoveredSite, Sizes};
use seam::Rt;
use site::Site;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{Layout, Level, Recover, Standalone};
use crate::failure::Failure;
use crate::host::client_limits;
use crate::output::Printer;

/// How long requests of the interface have to end at a stop.
const REQUESTS_WITHIN: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn standalone(rt: Rt, options: Standalone, printer: Printer) -> Result<(), Failure> {
    log_to_stderr(options.log);
    // From here on a signal is a clean stop, also while the site starts.
    let mut stop = Stop::new()?;
    let started = Site::start(rt.clone(), site_options(options)?).await?;
    let site = started.site;
    if let Some(other) = &started.other_media {
        tracing::warn!("{other}");
    }
    if let Some(key) = &started.recovery_key {
        show_recovery_key(key);
    }
    let served = async {
        site.serve().await?;
        let socket = site.directory().api_socket();
        // Last: its socket is the sign that all is there.
        let server = rest::Server::start(rt, site.clone(), &socket, site.budget().clone())
            .map_err(|error| Failure::of_io(code::API_SOCKET, socket.display(), &error))?;
        let dir = site.directory().root().display().to_string();
        let next = format!("serving {dir}; go on with: holdfast --site {dir} status");
        if let Err(failure) = printer.done(&Serving { serving: dir, is_new: started.is_new }, &next) {
            // Nobody listens; the site serves all the same.
            tracing::warn!(?failure, "not said");
        }
        let outcome = tokio::select! {
            () = stop.wait() => Ok(()),
            () = site.ended() => Err(ended()),
        };
        tracing::info!("stopping");
        server.stop(REQUESTS_WITHIN).await;
        outcome
    };
    let outcome: Result<(), Failure> = served.await;
    let stopped = site.stop().await;
    outcome?;
    stopped?;
    tracing::info!("stopped");
    Ok(())
}

/// Whoever looks after the server starts it again.
fn ended() -> Failure {
    let reason =
        "the engine has ended: the log says why; what was acknowledged is safe, start the server again";
    Failure::failed(code::INTERNAL, reason.to_owned())
}

/// Makes the directory of a site anew.
pub(crate) async fn recover(rt: Rt, options: Recover, printer: Printer) -> Result<(), Failure> {
    let dir = options.dir.display().to_string();
    let options = RecoverOptions {
        host: None,
        backend: options.io.backend(),
        dir: options.dir,
        media: options.from_media,
        recovery_key_file: options.recovery_key_file,
        passphrase_file: options.passphrase_file,
        missing: options.missing.unwrap_or(0),
        accept_loss: options.accept_loss,
    };
    let RecoveredSite { site, media, missing, lost } = Site::recover(rt, options).await?;
    let mut text =
        format!("site {site}: {media} media, {missing} missing; go on with: holdfast standalone --dir {dir}");
    lost.iter().for_each(|what| text.push_str(&format!("\nlost: {what}")));
    printer.done(&Recovered { recovered: dir, site: site.to_string(), media, missing, lost }, &text)
}

fn site_options(options: Standalone) -> Result<Options, Failure> {
    Ok(Options {
        host: None,
        default_points: !options.no_default_points,
        nbd_group: options.nbd_group.as_deref().map(machine::group_id).transpose()?,
        clients: client_limits(options.client_memory),
        dir: options.dir,
        media: options.media,
        file_media: options.file_media,
        passphrase_file: options.passphrase_file,
        recovery_key_file: options.recovery_key_file,
        backend: options.io.backend(),
        lease: Duration::ZERO,
        on_loss: if options.salvage { OnLoss::ServeAll } else { OnLoss::Serve },
        rebuild_after: Some(options.rebuild_after),
        write_patience: options.write_patience,
        task_patience: options.task_patience,
        sizes: match options.layout {
            Layout::Normal => Sizes::Normal,
            Layout::Tiny => Sizes::Tiny,
        },
    })
}

/// Crates that log each of their steps.
const OTHERS: [&str; 5] = ["h2", "hyper", "hyper_util", "rustls", "tower"];

pub(crate) fn log_to_stderr(level: Level) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // What other people's crates say of each frame and hand-shake hides what is looked for.
    let theirs = OTHERS.map(|name| (name, level.min(LevelFilter::INFO)));
    let shown = Targets::new().with_default(level).with_targets(theirs);
    let ansi = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(shown)).init();
}

/// Shows the recovery key to a person, and to nobody else.
fn show_recovery_key(key: &str) {
    if std::io::stdout().is_terminal() {
        println!("recovery key, shown once; write it down and keep it apart from the site:\n  {key}");
    } else {
        tracing::warn!("nobody has the recovery key: start once with --recovery-key-file FILE to get one");
    }
}

/// The signals that end the server.
pub(crate) struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(code::SIGNALS, error.to_string()));
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
