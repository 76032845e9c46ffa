//! The children of one supervisor, in their start order.

use std::collections::{BTreeMap, HashMap};

use ractor::{ActorCell, ActorId};

use events::supervision::Child;

use super::{ChildId, ChildSpec, ChildState};

/// Where a child is.
pub(super) enum Stage {
    Down,
    /// To be started when the restart of this number is due.
    Waiting(u64),
    Up {
        cell: ActorCell,
        since_ms: u64,
    },
    Quarantined,
}

/// One child.
pub(super) struct Slot {
    pub(super) spec: ChildSpec,
    pub(super) stage: Stage,
}

/// All children. Finding one is fast among many thousands.
#[derive(Default)]
pub(super) struct Children {
    /// By start order.
    slots: BTreeMap<u64, Slot>,
    orders: HashMap<ChildId, u64>,
    /// Those that are up.
    running: HashMap<ActorId, ChildId>,
    next: u64,
}

impl Children {
    /// Puts a child last in the start order. False: the name is taken.
    pub(super) fn push(&mut self, spec: ChildSpec) -> bool {
        if self.orders.contains_key(&spec.id) {
            return false;
        }
        self.orders.insert(spec.id.clone(), self.next);
        self.slots.insert(self.next, Slot { spec, stage: Stage::Down });
        self.next += 1;
        true
    }

    /// Forgets a child that is not up.
    pub(super) fn forget(&mut self, id: &ChildId) {
        if let Some(order) = self.orders.remove(id) {
            self.slots.remove(&order);
        }
    }

    pub(super) fn get(&self, id: &ChildId) -> Option<&Slot> {
        self.slots.get(self.orders.get(id)?)
    }

    /// The child that runs as this actor; none for an actor that was replaced or stopped.
    pub(super) fn running_as(&self, actor: ActorId) -> Option<ChildId> {
        self.running.get(&actor).cloned()
    }

    pub(super) fn up(&mut self, id: &ChildId, cell: ActorCell, since_ms: u64) {
        self.running.insert(cell.get_id(), id.clone());
        self.set(id, Stage::Up { cell, since_ms });
    }

    /// Moves a child to another stage; the cell and the start of one that was up.
    pub(super) fn set(&mut self, id: &ChildId, stage: Stage) -> Option<(ActorCell, u64)> {
        let slot = self.orders.get(id).and_then(|order| self.slots.get_mut(order))?;
        match std::mem::replace(&mut slot.stage, stage) {
            Stage::Up { cell, since_ms } => {
                self.running.remove(&cell.get_id());
                Some((cell, since_ms))
            }
            _ => None,
        }
    }

    pub(super) fn down(&mut self, id: &ChildId) -> Option<(ActorCell, u64)> {
        self.set(id, Stage::Down)
    }

    /// The names, in start order.
    pub(super) fn ids(&self) -> Vec<ChildId> {
        self.slots.values().map(|slot| slot.spec.id.clone()).collect()
    }

    /// Those that wait for the restart of this number, in start order.
    pub(super) fn waiting_for(&self, ticket: u64) -> Vec<ChildId> {
        let waits = |slot: &&Slot| matches!(slot.stage, Stage::Waiting(mine) if mine == ticket);
        self.slots.values().filter(waits).map(|slot| slot.spec.id.clone()).collect()
    }

    /// What a decision is made from: all that take part in restarts.
    pub(super) fn family(&self) -> Vec<Child<ChildId>> {
        let part = self.slots.values().filter(|slot| !matches!(slot.stage, Stage::Quarantined));
        part.map(Slot::child).collect()
    }

    pub(super) fn states(&self) -> Vec<(ChildId, ChildState)> {
        self.slots.values().map(|slot| (slot.spec.id.clone(), slot.state())).collect()
    }
}

impl Slot {
    pub(super) fn child(&self) -> Child<ChildId> {
        Child {
            id: self.spec.id.clone(),
            kind: self.spec.kind,
            running: matches!(self.stage, Stage::Up { .. }),
        }
    }

    fn state(&self) -> ChildState {
        match self.stage {
            Stage::Down => ChildState::Down,
            Stage::Waiting(_) => ChildState::Waiting,
            Stage::Up { .. } => ChildState::Up,
            Stage::Quarantined => ChildState::Quarantined,
        }
    }
}
