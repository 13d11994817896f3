//! Ctrl-C and SIGTERM: a flag that every loop looks at, so that what was started is ended and removed in good order.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code after a signal, as shells know it.
pub(crate) const EXIT: u8 = 130;

/// From now on a signal sets the flag; a second one ends the process at once, and its children with it.
pub(crate) fn listen() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ASKED.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(EXIT));
                }
                eprintln!("stopping");
            }
        });
    })?;
    Ok(())
}

/// An error once a signal came.
pub(crate) fn check() -> Result<(), Failure> {
    if ASKED.load(Ordering::Relaxed) { Err(Failure::Stopped) } else { Ok(()) }
}
