//! Who is using keys at the moment.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Uses that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Uses(watch::Sender<Running>);

#[derive(Debug, Default)]
struct Running {
    begun: u64,
    numbers: BTreeSet<u64>,
}

/// One use, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Use<'a> {
    uses: &'a Uses,
    number: u64,
}

impl Uses {
    pub(super) fn begin(&self) -> Use<'_> {
        let mut number = 0;
        self.0.send_modify(|running| {
            running.begun += 1;
            number = running.begun;
            running.numbers.insert(number);
        });
        Use { uses: self, number }
    }

    /// Waits until all have ended that have begun by now.
    pub(super) async fn ended(&self) {
        let begun = self.0.borrow().begun;
        let over = |running: &Running| running.numbers.first().is_none_or(|first| *first > begun);
        let _ = self.0.subscribe().wait_for(over).await.expect("the sender is here");
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.uses.0.send_modify(|running| {
            running.numbers.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn those_are_waited_for_that_have_begun() {
        let uses = Uses::default();
        uses.ended().await;
        let (first, second) = (uses.begin(), uses.begin());
        drop(second);
        let ended = uses.ended();
        tokio::pin!(ended);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut ended).await.is_err());
        let _later = uses.begin();
        drop(first);
        ended.await;
    }
}
