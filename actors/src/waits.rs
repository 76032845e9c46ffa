//! Who waits for whom: tasks whose attempts can go on only when others have ended, and whether those ever can.
//!
//! An attempt that waits for a child keeps its agent's place. Where all who could take the child wait, in the end, for
//! a place that they hold themselves, none of them goes on: the wait that would close such a circle is refused. What is
//! not known for certain (an agent that is on its way, a crew that is not recovered yet) counts as able to go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{CrewId, TaskId};

use crate::roster::{Seating, Wish};

/// What an attempt waits for.
#[derive(Clone, Debug)]
struct Wait {
    /// Whether one of them is enough.
    any: bool,
    children: Vec<Wish>,
}

type Waiting = BTreeMap<TaskId, Vec<(u64, Wait)>>;

/// The waits of this node's crews.
#[derive(Default)]
pub(crate) struct Waits(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    crews: HashMap<CrewId, Waiting>,
    next: u64,
}

/// A wait, until it is dropped.
pub(crate) struct Held {
    known: Arc<Mutex<Known>>,
    crew: CrewId,
    task: TaskId,
    number: u64,
}

fn locked(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waits {
    /// `task` waits for these, or if `any` for one of them, from now on.
    pub(crate) fn hold(&self, crew: &CrewId, task: &TaskId, any: bool, children: Vec<Wish>) -> Held {
        let mut known = locked(&self.0);
        known.next += 1;
        let number = known.next;
        let waiting = known.crews.entry(crew.clone()).or_default();
        waiting.entry(task.clone()).or_default().push((number, Wait { any, children }));
        Held { known: Arc::clone(&self.0), crew: crew.clone(), task: task.clone(), number }
    }
}

impl Held {
    /// The tasks that could never go on, this one among them; none if it can.
    pub(crate) fn stuck(&self, seats: &[Seating]) -> Vec<TaskId> {
        let known = locked(&self.known);
        let stuck = known.crews.get(&self.crew).map(|waiting| stuck(seats, waiting)).unwrap_or_default();
        if stuck.contains(&self.task) { stuck.into_iter().collect() } else { Vec::new() }
    }

    /// All that these tasks wait for.
    pub(crate) fn awaited(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        let known = locked(&self.known);
        let Some(waiting) = known.crews.get(&self.crew) else { return Vec::new() };
        let waits = tasks.iter().filter_map(|task| waiting.get(task)).flatten();
        waits.flat_map(|(_, wait)| wait.children.iter().map(|wish| wish.task.clone())).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut known = locked(&self.known);
        let Some(waiting) = known.crews.get_mut(&self.crew) else { return };
        if let Some(waits) = waiting.get_mut(&self.task) {
            waits.retain(|(number, _)| *number != self.number);
            if waits.is_empty() {
                waiting.remove(&self.task);
            }
        }
        if waiting.is_empty() {
            known.crews.remove(&self.crew);
        }
    }
}

/// The waiting tasks that no order of events lets go on: those that are left when all are taken away that can.
fn stuck(seats: &[Seating], waiting: &Waiting) -> BTreeSet<TaskId> {
    let mut stuck: BTreeSet<TaskId> = waiting.keys().cloned().collect();
    loop {
        let ends = |task: &TaskId| !stuck.contains(task);
        let comes = |wish: &Wish| {
            if waiting.contains_key(&wish.task) || seats.iter().any(|seat| seat.held.contains(&wish.task)) {
                return ends(&wish.task);
            }
            let mut fit = seats.iter().filter(|seat| seat.fits(wish));
            fit.any(|seat| seat.is_free || seat.held.iter().any(ends))
        };
        let goes_on = |waits: &[(u64, Wait)]| {
            waits.iter().all(|(_, wait)| match wait.any {
                true => wait.children.iter().any(comes),
                false => wait.children.iter().all(comes),
            })
        };
        let free: Vec<TaskId> = stuck
            .iter()
            .filter(|task| waiting.get(*task).is_none_or(|waits| goes_on(waits)))
            .cloned()
            .collect();
        if free.is_empty() {
            return stuck;
        }
        free.iter().for_each(|task| {
            stuck.remove(task);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> TaskId {
        TaskId::derive(&[name])
    }

    fn wish(name: &str, member: &str, replica: Option<u32>) -> Wish {
        Wish { task: task(name), member: member.to_owned(), replica, context: String::new() }
    }

    /// An agent that has this in hand and no room for more.
    fn full(member: &str, replica: u32, held: &[&str]) -> Seating {
        let held = held.iter().map(|name| task(name)).collect();
        Seating { member: member.to_owned(), replica, is_free: false, held }
    }

    fn crew() -> CrewId {
        CrewId::derive(&["crew"])
    }

    fn names(mut names: Vec<&str>) -> Vec<TaskId> {
        names.sort_by_key(|name| task(name));
        names.into_iter().map(task).collect()
    }

    #[test]
    fn two_that_wait_for_each_others_places_are_stuck_and_the_second_hears_it() {
        let waits = Waits::default();
        let seats = [full("a", 0, &["one"]), full("w", 0, &["two"])];
        let first = waits.hold(&crew(), &task("one"), false, vec![wish("child of one", "w", None)]);
        assert_eq!(first.stuck(&seats), []);
        let second = waits.hold(&crew(), &task("two"), false, vec![wish("child of two", "a", None)]);
        assert_eq!(second.stuck(&seats), names(vec!["one", "two"]));
        drop(second);
        assert_eq!(first.stuck(&seats), []);
    }

    #[test]
    fn a_named_replica_is_the_only_one_that_counts() {
        let waits = Waits::default();
        let seats = [full("a", 0, &["above"]), full("w", 0, &["between"]), {
            Seating { is_free: true, ..full("a", 1, &[]) }
        }];
        let _above = waits.hold(&crew(), &task("above"), false, vec![wish("between", "w", None)]);
        let anyone = waits.hold(&crew(), &task("between"), false, vec![wish("below", "a", None)]);
        assert_eq!(anyone.stuck(&seats), []);
        drop(anyone);
        let named = waits.hold(&crew(), &task("between"), false, vec![wish("below", "a", Some(0))]);
        assert_eq!(named.stuck(&seats), names(vec!["above", "between"]));
    }

    #[test]
    fn one_that_can_end_lets_all_go_on_that_wait_for_its_place() {
        let waits = Waits::default();
        let seats = [full("a", 0, &["one"]), full("w", 0, &["two", "works"])];
        let _one = waits.hold(&crew(), &task("one"), false, vec![wish("child of one", "w", None)]);
        let two = waits.hold(&crew(), &task("two"), false, vec![wish("child of two", "a", None)]);
        assert_eq!(two.stuck(&seats), []);
    }

    #[test]
    fn of_several_one_is_enough_where_one_is_asked_for() {
        let waits = Waits::default();
        let seats = [full("a", 0, &["one"]), full("w", 0, &["busy"])];
        let children = || vec![wish("back", "a", None), wish("forth", "w", None)];
        let any = waits.hold(&crew(), &task("one"), true, children());
        assert_eq!(any.stuck(&seats), []);
        drop(any);
        let all = waits.hold(&crew(), &task("one"), false, children());
        assert_eq!(all.stuck(&seats), [task("one")]);
    }
}
