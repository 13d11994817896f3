//! Which ensembles are registered outside the journal, as a plain state machine (section 4.1 of docs/design.md).
//!
//! Whoever takes over seals a member of *each* registered ensemble. So a segment may lie on an ensemble only while that is
//! registered for certain, and what is registered besides costs nothing as long as every loss that is to be survived
//! leaves a member of each: all are as wide as the site allows, each member in a failure domain of its own.
//!
//! A store that gives no answer may have happened, or happen yet. Until a later one is answered, what is certain is what
//! stands in each state that the witness may be in.

use proto::SegmentId;
use units::MediumId;

use crate::ensemble::{ENSEMBLES_MAX, Ensemble, Ensembles, Fitness, Registered};

/// Ensembles that a stream keeps registered: enough to spread segments over two dozen media. When more media fail at once
/// than are to be survived, fewer ensembles are less likely to be among them whole.
const OWN_MAX: usize = 8;

/// What the next segment may lie on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Too few media are up, whatever is registered.
    TooFew,
    /// These.
    Fit(Vec<MediumId>),
    /// These, when nothing better is registered soon; at once when nothing was answered lately.
    Stopgap(Vec<MediumId>, bool),
    /// None: what could be used is not registered.
    Unregistered,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Registered in every state that the witness may be in.
    certain: Vec<Ensemble>,
    /// Registered in some such state.
    possible: Vec<Ensemble>,
    /// The newest segment of the streams before lies on one of these.
    inherited: Vec<Ensemble>,
    last: Option<SegmentId>,
    /// Where the newest segment of this stream lies.
    in_use: Option<Ensemble>,
    /// Where the next one is being opened.
    opening: Option<Ensemble>,
    /// Number of the segment that comes next.
    turn: u32,
    /// Nothing that is registered is as good for it as what the pool chooses.
    is_asked: bool,
    /// The last store was not answered.
    is_silent: bool,
    /// What is being stored.
    attempt: Vec<Ensemble>,
}

impl Registry {
    /// Behind what was registered as the stream begins.
    pub(crate) fn new(registered: Registered) -> Self {
        let Registered { last, ensembles } = registered;
        Self {
            certain: ensembles.clone(),
            possible: ensembles.clone(),
            inherited: ensembles,
            last,
            ..Self::default()
        }
    }

    /// What segment `number` may lie on.
    pub(crate) fn choose(&mut self, pool: &dyn Ensembles, number: u32) -> Choice {
        self.turn = number;
        let proposal = pool.ensemble(number);
        if proposal.is_empty() {
            return Choice::TooFew;
        }
        if Ensemble::new(&proposal).is_some_and(|ensemble| self.certain.contains(&ensemble)) {
            return Choice::Fit(proposal);
        }
        let fit = self.of_fitness(pool, Fitness::Fit);
        if !fit.is_empty() {
            return Choice::Fit(fit[number as usize % fit.len()].members().to_vec());
        }
        self.is_asked = true;
        let widest = self.of_fitness(pool, Fitness::Stopgap).into_iter().max_by_key(|e| e.members().len());
        let stopgap = |ensemble: Ensemble| Choice::Stopgap(ensemble.members().to_vec(), self.is_silent);
        widest.map_or(Choice::Unregistered, stopgap)
    }

    fn of_fitness(&self, pool: &dyn Ensembles, fitness: Fitness) -> Vec<Ensemble> {
        self.certain.iter().filter(|e| pool.fitness(e.members()) == fitness).cloned().collect()
    }

    /// A segment is being opened on `members`: they stay registered.
    pub(crate) fn open(&mut self, members: &[MediumId]) {
        self.opening = Ensemble::new(members);
        assert!(
            self.opening.as_ref().is_some_and(|ensemble| self.certain.contains(ensemble)),
            "a segment lies on a registered ensemble"
        );
    }

    /// Nothing was or will be acknowledged in the segment that was being opened.
    pub(crate) fn give_up(&mut self) {
        self.opening = None;
    }

    /// The segment that was being opened takes records from now on.
    pub(crate) fn opened(&mut self, id: SegmentId) {
        self.last = Some(id);
        self.in_use = self.opening.take();
        self.inherited.clear();
        (self.turn, self.is_asked) = (id.number + 1, false);
    }

    /// What is to be stored now; `None` when all that is wanted is registered, and nothing else. From here on what is not in
    /// it is not certain any more.
    pub(crate) fn next_store(&mut self, pool: &dyn Ensembles) -> Option<Registered> {
        let wanted = self.wanted(pool);
        let is_missing = wanted.iter().any(|ensemble| !self.certain.contains(ensemble));
        let is_stale = self.possible.iter().any(|ensemble| !wanted.contains(ensemble));
        if !is_missing && !is_stale {
            return None;
        }
        self.certain.retain(|ensemble| wanted.contains(ensemble));
        self.possible
            .extend(wanted.iter().filter(|e| !self.possible.contains(e)).cloned().collect::<Vec<_>>());
        self.attempt.clone_from(&wanted);
        Some(Registered { last: self.last, ensembles: wanted })
    }

    /// The store was answered: it happened, and none before it happens any more.
    pub(crate) fn stored(&mut self) {
        self.certain = std::mem::take(&mut self.attempt);
        self.possible.clone_from(&self.certain);
        self.is_silent = false;
    }

    /// It was not answered, or not even sent: that is the same.
    pub(crate) fn not_stored(&mut self) {
        self.is_silent = true;
    }

    /// What is to be registered, the most needed first.
    fn wanted(&self, pool: &dyn Ensembles) -> Vec<Ensemble> {
        let mut wanted = Wanted::default();
        self.in_use
            .iter()
            .chain(&self.opening)
            .chain(&self.inherited)
            .for_each(|e| wanted.add(e, ENSEMBLES_MAX));
        let most = (wanted.0.len() + OWN_MAX).min(ENSEMBLES_MAX);
        let fit = self.of_fitness(pool, Fitness::Fit);
        if self.in_use.is_none() {
            // Those of the streams before go first: a row of takeovers that all end here must not fill the list.
            let first = Ensemble::new(&pool.ensemble(self.turn)).filter(|_| fit.is_empty());
            first.iter().for_each(|ensemble| wanted.add(ensemble, most));
            return wanted.0;
        }
        // Segments are spread over what there is once that is much.
        let next = |turn: u32| {
            let next = Ensemble::new(&pool.ensemble(turn));
            let next = next.filter(|next| self.is_asked || !self.is_narrow(next));
            next.filter(|next| fit.len() < OWN_MAX || fit.contains(next))
        };
        next(self.turn).iter().for_each(|ensemble| wanted.add(ensemble, most));
        let newest = self.opening.as_ref().or(self.in_use.as_ref());
        for lost in newest.into_iter().flat_map(Ensemble::members) {
            let spare = spare(pool, *lost, &wanted.0, &fit);
            spare.iter().for_each(|spare| wanted.add(spare, most));
        }
        let second = next(self.turn.wrapping_add(1));
        second.iter().chain(&fit).for_each(|ensemble| wanted.add(ensemble, most));
        wanted.0
    }

    /// Whether fewer losses than now would leave no member of `ensemble`. Such a one is registered only when the next segment
    /// is to lie there, and its members answer.
    fn is_narrow(&self, ensemble: &Ensemble) -> bool {
        let newest = self.in_use.iter().chain(&self.inherited).map(|newest| newest.members().len());
        newest.max().is_some_and(|width| ensemble.members().len() < width)
    }

    /// Those of `next` that narrow what may be lost.
    pub(crate) fn narrowing(&self, next: &Registered) -> Vec<Ensemble> {
        let is_new = |ensemble: &&Ensemble| !self.certain.contains(ensemble) && self.is_narrow(ensemble);
        next.ensembles.iter().filter(is_new).cloned().collect()
    }

    /// The media of all that may be registered, ensemble by ensemble.
    pub(crate) fn possible(&self) -> &[Ensemble] {
        &self.possible
    }
}

#[derive(Default)]
struct Wanted(Vec<Ensemble>);

impl Wanted {
    fn add(&mut self, ensemble: &Ensemble, most: usize) {
        if self.0.len() < most && !self.0.contains(ensemble) {
            self.0.push(ensemble.clone());
        }
    }
}

/// What can go on when `lost` fails, and its failure domain with it where others are left: one that is wanted anyway, or
/// registered, or new.
fn spare(pool: &dyn Ensembles, lost: MediumId, wanted: &[Ensemble], fit: &[Ensemble]) -> Option<Ensemble> {
    let new = Ensemble::new(&pool.spare(0, lost))?;
    let is_without = |ensemble: &Ensemble, whole: bool| {
        let gone = |medium: &MediumId| *medium == lost || whole && pool.fail_together(*medium, lost);
        !ensemble.members().iter().any(gone)
    };
    let whole = is_without(&new, true);
    let serves = |ensemble: &&Ensemble| {
        pool.fitness(ensemble.members()) == Fitness::Fit && is_without(ensemble, whole)
    };
    Some(wanted.iter().chain(fit).find(serves).cloned().unwrap_or(new))
}
