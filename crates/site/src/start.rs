//! A site that is started, opened or recovered.

use std::sync::Arc;
use std::time::Duration;

use api::types::MediumState;
use api::{Error, Result};
use engine::{OnLoss, Witness};
use machine::{Home, Lock, Opened, Options, RecoverOptions, RecoveredSite};
use seam::Rt;

use crate::running::{Parts, Site};

/// Pause between two looks at media: a person who plugs a disk in waits no longer.
const PROBE_PAUSE: Duration = Duration::from_secs(3);

/// A started site.
#[derive(Debug)]
pub struct Started {
    /// The site.
    pub site: Site,
    /// Whether this start made it.
    pub is_new: bool,
    /// The recovery key of a new site whose key went to no file: for the administrator's eyes, once.
    pub recovery_key: Option<String>,
    /// What the site's media are, where the options name others: they are for a site's first start.
    pub other_media: Option<String>,
}

impl Site {
    /// Starts the site in a directory, making it at the first start.
    ///
    /// # Errors
    /// As [`machine::start`].
    pub async fn start(rt: Rt, options: Options) -> Result<Started> {
        let machine::Begun { opened, is_new, recovery_key, other_media } =
            machine::start(rt, &options).await?;
        Ok(Started { site: Self::of(opened, &options), is_new, recovery_key, other_media })
    }

    /// Opens a site whose media are at `home`, for the one who has claimed it with `witness`. `options` say how; not where
    /// its media are.
    ///
    /// # Errors
    /// As [`Site::start`] for a site that is there.
    pub async fn open(
        rt: Rt,
        home: Arc<dyn Home>,
        witness: Arc<dyn Witness>,
        lock: Arc<Lock>,
        options: &Options,
    ) -> Result<Self> {
        Ok(Self::of(machine::open(rt, home, witness, lock, options).await?, options))
    }

    fn of(opened: Opened, options: &Options) -> Self {
        let Opened { rt, home, directory, engine, absent, keys_from, ring, lock } = opened;
        Self::new(Parts {
            rt,
            home,
            directory,
            engine,
            absent,
            keys_from,
            ring,
            task_patience: options.task_patience,
            clients: options.clients.clone(),
            probe_pause: options.host.as_ref().map_or(PROBE_PAUSE, |host| host.probe_pause()),
            default_points: options.default_points,
            nbd_group: options.nbd_group,
            _lock: lock,
        })
    }

    /// Makes the directory of a site anew, and gives up what is lost where that is said. The site does not serve.
    ///
    /// # Errors
    /// As [`machine::recover`]; where losses are accepted, as [`Site::start`].
    pub async fn recover(rt: Rt, options: RecoverOptions) -> Result<RecoveredSite> {
        if !options.accept_loss {
            return machine::recover(rt, options).await;
        }
        let accept = Options {
            passphrase_file: options.passphrase_file.clone(),
            backend: options.backend,
            on_loss: OnLoss::Accept,
            host: options.host.clone(),
            ..Options::new(&options.dir)
        };
        let mut lost = Vec::new();
        if !options.directory()?.has_site()? {
            lost = machine::recover(rt.clone(), options).await?.lost;
        }
        let accepted = accept_losses(rt, accept).await?;
        lost.extend(accepted.lost);
        Ok(RecoveredSite { lost, ..accepted })
    }
}

/// Opens the site, has it go on from what is left, and stops it.
async fn accept_losses(rt: Rt, options: Options) -> Result<RecoveredSite> {
    let site = Site::start(rt, options).await?.site;
    let lost = site.engine().losses();
    let status = site.status().await;
    site.stop().await?;
    let status = status?;
    let media = status.media.iter().filter(|medium| medium.state != MediumState::Down).count();
    let id = site.shared.parts.home.manifest().site();
    Ok::<_, Error>(RecoveredSite { site: id, media, missing: status.media.len() - media, lost })
}
