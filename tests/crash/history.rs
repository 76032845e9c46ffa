//! What the clients asked for and what they were told: invoked, acknowledged, or unknown for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Every task that a client has asked for.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<BTreeMap<String, Operation>>);

/// One task, under one idempotency key.
#[derive(Clone, Debug, Default)]
struct Operation {
    /// A text that no other task has; none where the client insists.
    only_text: Option<String>,
    /// How often it was asked for.
    invoked: u64,
    /// The ids that were answered: one, however often it was asked for.
    acknowledged: BTreeSet<String>,
}

impl History {
    fn operation<T>(&self, key: &str, change: impl FnOnce(&mut Operation) -> T) -> T {
        let mut operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(operations.entry(key.to_owned()).or_default())
    }

    /// A client asks for a task; `only_text` is in it and in no other, where the client asks only once.
    pub(crate) fn invoked(&self, key: &str, only_text: Option<&str>) {
        self.operation(key, |operation| {
            operation.invoked += 1;
            operation.only_text = only_text.map(str::to_owned);
        });
    }

    /// The platform has accepted it.
    pub(crate) fn acknowledged(&self, key: &str, task: &str) {
        self.operation(key, |operation| operation.acknowledged.insert(task.to_owned()));
    }

    /// Holds the tasks of the log, each with what was asked for, to what the clients know.
    pub(crate) fn explains(&self, given: &BTreeMap<&str, String>) {
        let operations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut explained = BTreeSet::new();
        let mut unknown = 0;
        for (key, operation) in operations.iter() {
            let Operation { only_text, invoked, acknowledged } = operation;
            let tasks: BTreeSet<&str> = match (acknowledged.first(), only_text) {
                (Some(task), _) => {
                    assert_eq!(acknowledged.len(), 1, "{key}, asked for {invoked} times, has one outcome");
                    assert!(
                        given.contains_key(task.as_str()),
                        "{key} was acknowledged as {task} and is lost"
                    );
                    [task.as_str()].into()
                }
                (None, Some(text)) => {
                    unknown += 1;
                    given.iter().filter(|(_, input)| input.contains(text)).map(|(task, _)| *task).collect()
                }
                (None, None) => panic!("{key} was given up, though its client insists"),
            };
            assert!(tasks.len() <= 1, "{key} was carried out more than once: {tasks:?}");
            explained.extend(tasks);
        }
        let strange: Vec<_> = given.keys().filter(|task| !explained.contains(**task)).collect();
        assert!(strange.is_empty(), "nobody asked for {strange:?}");
        println!("{} operations, {unknown} of them unknown, {} tasks", operations.len(), given.len());
    }
}
