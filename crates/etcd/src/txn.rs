//! Transactions, and what a full database says about them.

use std::sync::atomic::Ordering;

use etcd_client::{
    AlarmAction, AlarmType, Compare as Comparison, CompareOp, DeleteOptions, PutOptions, Txn as Request,
    TxnOp,
};
use meta::{Compare, Error, ErrorKind, Key, Op, Result, Revision, Test, Txn, TxnResult};

use crate::Etcd;
use crate::members::Effect;
use crate::names::{Names, Span, revision, signed};

impl Etcd {
    pub(crate) async fn transact(&self, txn: Txn) -> Result<TxnResult> {
        txn.check()?;
        let puts = first_put(&txn.then).or(first_put(&txn.otherwise)).is_some();
        if puts && self.full.load(Ordering::Relaxed) {
            self.refuse_while_full().await?;
        }
        let before = Revision(self.newest.load(Ordering::Relaxed));
        let request = self.names.request(&txn);
        let changes = !txn.then.is_empty() || !txn.otherwise.is_empty();
        let effect = if changes { Effect::Once } else { Effect::None };
        let answered = self
            .members
            .ask("a transaction", effect, |member, _| {
                let request = request.clone();
                async move { Ok(member.client().kv_client().txn(request).await?) }
            })
            .await;
        match answered {
            Ok(answer) => {
                let revision = revision(answer.header().map_or(-1, |header| header.revision()))?;
                self.seen(revision);
                Ok(TxnResult { succeeded: answer.succeeded(), revision })
            }
            Err(fault) => match Error::from(fault) {
                error if error.kind == ErrorKind::Full => {
                    Err(self.full_or_unknown(&txn, before, error).await)
                }
                error => Err(error),
            },
        }
    }

    /// Refuses a transaction that puts as long as etcd has the alarm for a full database up. It would do the same, but of
    /// this refusal it is certain that nothing was done.
    async fn refuse_while_full(&self) -> Result<()> {
        let ask = |member: std::sync::Arc<crate::members::Member>, _| async move {
            Ok(member.client().alarm(AlarmAction::Get, AlarmType::Nospace, None).await?)
        };
        let answer = self.members.ask("a look at the alarms", Effect::None, ask).await?;
        if answer.alarms().is_empty() {
            self.full.store(false, Ordering::Relaxed);
            return Ok(());
        }
        Err(Error::new(ErrorKind::Full, "the database of etcd is full, and its alarm is up"))
    }

    /// etcd called its database full. It does so before a transaction, and then nothing is done; or behind the very one
    /// that fills it, which is then done. `before` was the revision before it was sent.
    async fn full_or_unknown(&self, txn: &Txn, before: Revision, error: Error) -> Error {
        self.full.store(true, Ordering::Relaxed);
        for ops in [&txn.then, &txn.otherwise] {
            if ops.is_empty() {
                continue;
            }
            match self.untouched(first_put(ops), before).await {
                Ok(true) => {}
                Ok(false) => {
                    let context = "etcd calls its database full, and something was changed meanwhile";
                    return Error::new(ErrorKind::Unknown, context);
                }
                Err(error) => return Error::new(ErrorKind::Unknown, error.context),
            }
        }
        error
    }

    /// Whether it is certain that no transaction behind `before` has put `key`, or done anything.
    async fn untouched(&self, key: Option<&Key>, before: Revision) -> Result<bool> {
        let range = key.map_or_else(meta::KeyRange::all, meta::KeyRange::one);
        let page = self.range_of(range, 1, None).await?;
        let old = page.kvs.first().is_some_and(|kv| kv.mod_revision <= before);
        Ok(page.revision <= before || (old && key.is_some()))
    }
}

fn first_put(ops: &[Op]) -> Option<&Key> {
    ops.iter().find_map(|op| match op {
        Op::Put { key, .. } => Some(key),
        Op::Delete(_) => None,
    })
}

impl Names {
    fn request(&self, txn: &Txn) -> Request {
        let compares: Vec<Comparison> = txn.compares.iter().map(|compare| self.compare(compare)).collect();
        Request::new().when(compares).and_then(self.ops(&txn.then)).or_else(self.ops(&txn.otherwise))
    }

    fn compare(&self, compare: &Compare) -> Comparison {
        let key = self.out(&compare.key);
        match &compare.test {
            Test::ModRevision(at) => Comparison::mod_revision(key, CompareOp::Equal, signed(at.0)),
            Test::CreateRevision(at) => Comparison::create_revision(key, CompareOp::Equal, signed(at.0)),
            Test::Value(value) => Comparison::value(key, CompareOp::Equal, &**value),
            Test::Present => Comparison::create_revision(key, CompareOp::Greater, 0),
        }
    }

    fn ops(&self, ops: &[Op]) -> Vec<TxnOp> {
        let op = |op: &Op| match op {
            Op::Put { key, value, lease } => {
                let options = PutOptions::new().with_lease(lease.map_or(0, |lease| signed(lease.0)));
                Some(TxnOp::put(self.out(key), &**value, Some(options)))
            }
            Op::Delete(range) => {
                let Span { start, end } = self.span(range)?;
                Some(TxnOp::delete(start, Some(DeleteOptions::new().with_range(end))))
            }
        };
        ops.iter().filter_map(op).collect()
    }
}
