//! Leases. Their ids are ours, so that a grant can be asked for again.

use std::time::Duration;

use etcd_client::LeaseGrantOptions;
use meta::{Error, ErrorKind, LEASE_TTL_MAX, LEASE_TTL_MIN, Lease, LeaseId, Result};

use crate::Etcd;
use crate::fault::Fault;
use crate::members::Effect;
use crate::names::signed;

/// A time to live as etcd says it, which is nothing or less once the lease has ended.
fn time_to_live(lease: LeaseId, seconds: i64) -> std::result::Result<Duration, Fault> {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(Fault::refused(ErrorKind::LeaseNotFound, gone(lease))),
    }
}

fn gone(lease: LeaseId) -> String {
    format!("lease {:016x} has ended or never was", lease.0)
}

impl Etcd {
    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<Lease> {
        if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) {
            return Err(Error::invalid(format!("a time to live of {ttl:?}: it is 1 second to 24 hours")));
        }
        let seconds = signed(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        let id = LeaseId((seam::random_u64(&**self.members.rt()) & LeaseId::MAX).max(1));
        let ttl = self
            .members
            .ask("a lease", Effect::None, |member, lost| async move {
                let mut leases = member.client().lease_client();
                let options = LeaseGrantOptions::new().with_id(signed(id.0));
                match leases.grant(seconds, Some(options)).await.map_err(Fault::from) {
                    Ok(granted) => time_to_live(id, granted.ttl()),
                    // An earlier attempt made it.
                    Err(Fault::Exists) if lost => {
                        let lives = leases.time_to_live(signed(id.0), None).await?;
                        time_to_live(id, lives.granted_ttl())
                    }
                    Err(fault) => Err(fault),
                }
            })
            .await?;
        Ok(Lease { id, ttl })
    }

    pub(crate) async fn renew_lease(&self, lease: LeaseId) -> Result<Duration> {
        let renewed = self.members.ask("a lease's renewal", Effect::None, |member, _| async move {
            // The client keeps the first answer to itself, so a second one says how long.
            let (mut keeper, mut answers) =
                member.client().lease_client().keep_alive(signed(lease.0)).await?;
            keeper.keep_alive().await?;
            match answers.message().await? {
                Some(answer) => time_to_live(lease, answer.ttl()),
                None => Err(Fault::Lost("the renewal was not answered".to_owned())),
            }
        });
        Ok(renewed.await?)
    }

    pub(crate) async fn end_lease(&self, lease: LeaseId) -> Result<()> {
        let ended = self.members.ask("a lease's end", Effect::Same, |member, lost| async move {
            match member.client().lease_client().revoke(signed(lease.0)).await.map_err(Fault::from) {
                // An earlier attempt ended it.
                Err(Fault::Refused(error)) if lost && error.kind == ErrorKind::LeaseNotFound => Ok(()),
                Err(fault) => Err(fault),
                Ok(_) => Ok(()),
            }
        });
        Ok(ended.await?)
    }
}
