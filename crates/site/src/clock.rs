//! Site time beside the host's clock: what is said of them, and how the host's is believed.

use api::types::{Clock, Health};
use api::{Result, format_time};

use crate::running::Site;
use crate::status::Judging;

/// A difference that is worth knowing, ms: longer than clocks that are looked after drift apart.
const TOLD_MS: u64 = 10 * 60 * 1000;

impl Site {
    /// Site time and the host's clock.
    pub fn clock(&self) -> Clock {
        Clock { site_ms: self.engine().site_time_ms(), host_ms: self.engine().host_time_ms() }
    }

    /// Has site time go on from the host's clock where that is ahead: what was to stay until then may go.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn believe_host_clock(&self) -> Result<Clock> {
        let before = self.clock();
        self.engine().believe_host().await?;
        let Clock { site_ms, .. } = self.clock();
        tracing::info!(
            from = format_time(before.site_ms),
            to = format_time(site_ms),
            "the host's clock is believed"
        );
        Ok(self.clock())
    }
}

impl Judging {
    /// Says when site time and the host's clock differ.
    pub(crate) fn add_clock(&mut self, clock: Clock) {
        let Clock { site_ms, host_ms } = clock;
        if site_ms.abs_diff(host_ms) < TOLD_MS {
            return;
        }
        let (site, host) = (format_time(site_ms), format_time(host_ms));
        let are = format!("the host's clock says {host} and site time is {site}");
        if host_ms < site_ms {
            self.0.notices.push(format!("{are}: site time goes on by itself and waits for nobody"));
        } else if host_ms - site_ms <= seam::BELIEVED.as_millis() as u64 {
            self.0.notices.push(format!("{are}: the next start goes on from the host's clock"));
        } else {
            self.0.reasons.push(format!("{are}: holds, the trash and schedules go by site time"));
            self.0.next.push(
                "set the host's clock right; when it is right, and the site rested for so long: `clock accept`".to_owned(),
            );
            if self.0.health == Health::Ok {
                self.0.health = Health::Degraded;
            }
        }
    }
}
