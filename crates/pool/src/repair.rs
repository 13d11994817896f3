//! Repair: whole fragments written again from the others.

use std::sync::atomic::Ordering;

use container::FragmentHeader;
use proto::{CallErrorKind, Request, Response};
use units::{PageBuf, PageSlice};

use crate::read::{PoolError, PoolErrorKind, Stripe};
use crate::stripe::{Pool, lock};

/// Containers that may wait for repair; more are found again by the next read or scrub.
const REPAIRS_MAX: usize = 1024;

impl Pool {
    /// Queues a container for repair.
    pub(crate) fn repair_later(&self, stripe: Stripe) {
        {
            let mut repairs = lock(&self.shared.repairs);
            if repairs.queue.len() >= REPAIRS_MAX || !repairs.queued.insert(stripe.container) {
                return;
            }
            repairs.queue.push_back(stripe);
            if std::mem::replace(&mut repairs.running, true) {
                return;
            }
        }
        let pool = self.clone();
        let task = async move { while pool.repair_next().await {} };
        self.shared.rt.spawn("repair", Box::pin(task));
    }

    async fn repair_next(&self) -> bool {
        let stripe = {
            let mut repairs = lock(&self.shared.repairs);
            let Some(stripe) = repairs.queue.pop_front() else {
                repairs.running = false;
                return false;
            };
            stripe
        };
        if let Err(error) = self.mend(&stripe).await {
            tracing::error!(container = %stripe.container, %error, "repair failed");
        }
        lock(&self.shared.repairs).queued.remove(&stripe.container);
        true
    }

    /// Whether nothing waits for repair.
    pub fn is_repaired(&self) -> bool {
        !lock(&self.shared.repairs).running
    }

    /// Reads every fragment of a container within reach, checks it, and writes missing and damaged ones again.
    /// Gives how many were written.
    ///
    /// # Errors
    /// [`PoolErrorKind::Lost`] when fewer than k fragments are sound.
    pub async fn mend(&self, stripe: &Stripe) -> Result<u64, PoolError> {
        let reads = (0..stripe.class.width()).map(|index| self.whole(stripe, index));
        let mut sound: Vec<(usize, FragmentHeader, PageSlice)> = Vec::new();
        let mut wrong = Vec::new();
        for (index, read) in seam::join_all(reads).await.into_iter().enumerate() {
            match read {
                Whole::Sound(header, payload) => sound.push((index, *header, payload)),
                Whole::Wrong => wrong.push(index),
                Whole::Away => {}
            }
        }
        if sound.len() < stripe.class.k {
            let reason = format!("container {}: only {} fragments are sound", stripe.container, sound.len());
            return Err(PoolError::new(PoolErrorKind::Lost, reason));
        }
        for index in &wrong {
            self.rewrite(stripe, *index, &sound).await?;
        }
        Ok(wrong.len() as u64)
    }

    async fn rewrite(
        &self,
        stripe: &Stripe,
        index: usize,
        sound: &[(usize, FragmentHeader, PageSlice)],
    ) -> Result<(), PoolError> {
        let mut out = PageBuf::zeroed(stripe.fragment_bytes());
        let have: Vec<(usize, &[u8])> = sound.iter().map(|(i, _, payload)| (*i, payload.as_ref())).collect();
        self.code(&stripe.class)
            .reconstruct(&have, &[index], &mut [out.as_mut()])
            .map_err(|error| PoolError::new(PoolErrorKind::Lost, error.to_string()))?;
        let payload = out.share();
        let page_crcs = FragmentHeader::crcs_of(&payload);
        let header = FragmentHeader { index: index as u8, page_crcs, ..sound[0].1.clone() };
        let request = Request::FragmentWrite { header: Box::new(header), payload, replace: true };
        let medium = stripe.members[index];
        self.ask(medium, request).await.map_err(|error| {
            let kind = if error.kind == CallErrorKind::NoSpace {
                PoolErrorKind::NoSpace
            } else {
                PoolErrorKind::TooFewMedia
            };
            PoolError::new(kind, error.to_string())
        })?;
        self.shared.stats.repaired.fetch_add(1, Ordering::Relaxed);
        tracing::info!(container = %stripe.container, fragment = index, %medium, "fragment repaired");
        Ok(())
    }

    async fn whole(&self, stripe: &Stripe, index: usize) -> Whole {
        let medium = stripe.members[index];
        let container = stripe.container;
        let header = match self.ask(medium, Request::FragmentHeader { container, index: index as u8 }).await {
            Ok(Response::Header(header)) => header,
            Err(error) if matches!(error.kind, CallErrorKind::Failed | CallErrorKind::Unreachable) => {
                return Whole::Away;
            }
            _ => return Whole::Wrong,
        };
        if header.payload_bytes() != stripe.fragment_bytes() || header.members != stripe.members {
            return Whole::Wrong;
        }
        let length = stripe.fragment_bytes() as u32;
        let request =
            Request::FragmentRead { container, index: index as u8, offset: 0, length, verify: true };
        match self.ask(medium, request).await {
            Ok(Response::Bytes(bytes)) => Whole::Sound(header, PageBuf::copy_of(bytes.as_ref()).share()),
            Err(error) if matches!(error.kind, CallErrorKind::Failed | CallErrorKind::Unreachable) => {
                Whole::Away
            }
            _ => Whole::Wrong,
        }
    }
}

enum Whole {
    Sound(Box<FragmentHeader>, PageSlice),
    Wrong,
    Away,
}
