//! The fate of messages between two ends: late, lost, doubled, out of order, cut off.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::digest::Event;
use crate::executor::Control;
use crate::rng::Rng;

/// How a link treats messages. Each direction has a link of its own.
#[derive(Debug, Clone, Copy)]
pub struct LinkPolicy {
    /// The shortest delay.
    pub min: Duration,
    /// The longest usual delay.
    pub max: Duration,
    /// How many in a million take longer.
    pub rare_ppm: u32,
    /// The longest rare delay.
    pub rare_max: Duration,
    /// How many in a million are lost.
    pub drop_ppm: u32,
    /// How many in a million arrive twice.
    pub twice_ppm: u32,
    /// How long after the first the second may come.
    pub twice_max: Duration,
    /// How many in a million may overtake others. The rest arrive in the order they were sent, as on a stream.
    pub reorder_ppm: u32,
}

impl Default for LinkPolicy {
    /// A sound local network: 50 to 200 us, 5 ms for one in a thousand, nothing lost, all in order.
    fn default() -> Self {
        Self {
            min: Duration::from_micros(50),
            max: Duration::from_micros(200),
            rare_ppm: 1000,
            rare_max: Duration::from_millis(5),
            drop_ppm: 0,
            twice_ppm: 0,
            twice_max: Duration::from_micros(200),
            reorder_ppm: 0,
        }
    }
}

/// What happens to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Deliver(Duration),
    /// It never arrives. A stream transport breaks its connection.
    Drop,
    /// It arrives after the first time, and again after the second.
    Twice(Duration, Duration),
}

/// How often each fate was decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Delivered, doubled ones included.
    pub delivered: u64,
    /// Lost by the policy.
    pub dropped: u64,
    /// Lost because the link was cut.
    pub cut: u64,
    /// Doubled.
    pub doubled: u64,
    /// Delivered before one that was sent earlier.
    pub overtook: u64,
}

/// One direction between two ends: decides, carries nothing.
#[derive(Debug)]
pub struct Link {
    control: Control,
    rng: Rng,
    policy: LinkPolicy,
    cut: bool,
    counts: LinkCounts,
    /// When the latest of the messages so far arrives.
    last_arrival: Duration,
}

impl Link {
    /// A link with randomness of its own. `name` is the label of its stream.
    ///
    /// # Panics
    /// As [`Link::set_policy`].
    pub fn new(control: &Control, name: &str, policy: LinkPolicy) -> Self {
        let mut link = Self {
            control: control.clone(),
            rng: control.rng(name),
            policy: LinkPolicy::default(),
            cut: false,
            counts: LinkCounts::default(),
            last_arrival: Duration::ZERO,
        };
        link.set_policy(policy);
        link
    }

    /// Changes the policy from now on.
    ///
    /// # Panics
    /// When `min`, `max` and `rare_max` are not in ascending order.
    pub fn set_policy(&mut self, policy: LinkPolicy) {
        assert!(policy.min <= policy.max && policy.max <= policy.rare_max, "delays must ascend");
        self.policy = policy;
    }

    /// Cuts the link (every message is lost) or mends it.
    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// How often each fate was decided.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Decides the fate of a message sent at `now`.
    pub fn decide(&mut self, now: Duration) -> Fate {
        let fate = self.draw(now);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let words = match fate {
            Fate::Deliver(after) => [1, nanos(after), 0],
            Fate::Drop => [2, 0, 0],
            Fate::Twice(first, second) => [3, nanos(first), nanos(second)],
        };
        self.control.trace_words(Event::Link, &words);
        fate
    }

    fn draw(&mut self, now: Duration) -> Fate {
        if self.cut {
            self.counts.cut += 1;
            return Fate::Drop;
        }
        if self.rng.chance(self.policy.drop_ppm) {
            self.counts.dropped += 1;
            return Fate::Drop;
        }
        self.counts.delivered += 1;
        let first = self.draw_delay(now);
        if !self.rng.chance(self.policy.twice_ppm) {
            return Fate::Deliver(first);
        }
        self.counts.doubled += 1;
        Fate::Twice(first, first + between(&mut self.rng, Duration::ZERO, self.policy.twice_max))
    }

    fn draw_usual(&mut self) -> Duration {
        between(&mut self.rng, self.policy.min, self.policy.max)
    }

    fn draw_delay(&mut self, now: Duration) -> Duration {
        let mut delay = if self.rng.chance(self.policy.rare_ppm) {
            between(&mut self.rng, self.policy.max, self.policy.rare_max)
        } else {
            self.draw_usual()
        };
        if now + delay < self.last_arrival {
            if self.rng.chance(self.policy.reorder_ppm) {
                self.counts.overtook += 1;
            } else {
                delay = self.last_arrival - now;
            }
        }
        self.last_arrival = self.last_arrival.max(now + delay);
        delay
    }
}

fn between(rng: &mut Rng, low: Duration, high: Duration) -> Duration {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
    Duration::from_nanos(rng.range(nanos(low)..nanos(high) + 1))
}
