//! What all lists have in common: limit, cursor, order, and the position that the reader must see.

use std::fmt::Display;
use std::time::Duration;

use events::Position;
use events::api::{Problem, ProblemKind};
use events::projection::{Direction, PAGE_ITEMS_MAX, Page, PageRequest, ViewError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::api::Refusal;

/// Which end a list begins with.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// The oldest first.
    #[default]
    Oldest,
    /// The newest first.
    Newest,
}

/// What every list is asked for.
pub(super) trait Listing {
    fn limit(&self) -> Option<u32>;
    fn cursor(&self) -> Option<&str>;
    fn order(&self) -> Order;
    fn min_position(&self) -> Option<u64>;

    /// The part of the list that is wanted.
    fn page(&self) -> Result<PageRequest, Refusal> {
        let items_max = self.limit().unwrap_or(100);
        if !(1..=PAGE_ITEMS_MAX).contains(&items_max) {
            return Err(Refusal::invalid(format!(
                "`limit`: found {items_max}, expected 1 to {PAGE_ITEMS_MAX}"
            )));
        }
        let cursor = self.cursor().map(|cursor| {
            let position = cursor.parse().map(Position);
            position.map_err(|_| Refusal::invalid("`cursor`: expected the `next` of the page before"))
        });
        let direction = match self.order() {
            Order::Oldest => Direction::Oldest,
            Order::Newest => Direction::Newest,
        };
        Ok(PageRequest { items_max, cursor: cursor.transpose()?, direction })
    }
}

/// The query of a list: the common fields and its own.
macro_rules! listing {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            /// Most items, 1 to 1000; 100 by default.
            limit: Option<u32>,
            /// The `next` of the page before.
            cursor: Option<String>,
            /// Which end the list begins with.
            #[serde(default)]
            order: Order,
            /// The answer waits until everything up to this position can be seen in it.
            #[serde(alias = "min_position")]
            min_position: Option<u64>,
            $($(#[$field_doc])* pub(super) $field: $type,)*
        }

        impl Listing for $name {
            fn limit(&self) -> Option<u32> { self.limit }
            fn cursor(&self) -> Option<&str> { self.cursor.as_deref() }
            fn order(&self) -> Order { self.order }
            fn min_position(&self) -> Option<u64> { self.min_position }
        }
    };
}
pub(super) use listing;

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Items<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// Everything up to this position was seen.
    pub(super) position: u64,
}

/// How far the views have come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    is_current: bool,
}

impl Settled {
    /// What was found, or that there is nothing of this id: unless the views are too far behind to know.
    pub(super) fn found<T>(
        self,
        found: Result<Option<T>, ViewError>,
        kind: impl Display,
        id: &str,
    ) -> Result<T, Problem> {
        found?.ok_or_else(|| match self.is_current {
            true => Problem::new(ProblemKind::NotFound, format!("{kind} `{id}` does not exist")),
            false => {
                let detail =
                    format!("the views are behind the log, and know no {kind} `{id}` yet; ask again");
                Problem::new(ProblemKind::Unavailable, detail)
            }
        })
    }
}

impl Api {
    /// Waits until the views have come to `position`, for as long as a reader may wait; without one, until they have
    /// come to where the log ends now, for a short while: who asks after a command sees what it did.
    pub(super) async fn settle(&self, position: Option<u64>) -> Result<Settled, Refusal> {
        let Some(position) = position else { return self.catch_up().await };
        let limit = Duration::from_millis(self.limits.wait_ms_max);
        let waited = tokio::select! {
            waited = self.views.wait_for(Position(position), limit) => waited,
            () = self.stop.cancelled() => return Err(super::stopping().into()),
        };
        waited.map_err(Problem::from)?;
        Ok(Settled { is_current: true })
    }

    /// A page as it is answered.
    pub(super) fn items<V, T>(&self, page: Page<V>, item: impl FnMut(V) -> T) -> Items<T> {
        Items {
            next: page.next.map(|position| position.to_string()),
            items: page.items.into_iter().map(item).collect(),
            position: self.views.position().0,
        }
    }

    async fn catch_up(&self) -> Result<Settled, Refusal> {
        let head = self.store.head().await?;
        let limit = Duration::from_millis(self.limits.catch_up_ms);
        // Views that stay behind have been asked; what they know is the answer, but what they do not know is none.
        let is_current = self.views.wait_for(head.position, limit).await.is_ok();
        Ok(Settled { is_current })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_views_that_are_behind_do_not_know_may_be_there() {
        let found = |is_current| Settled { is_current }.found::<()>(Ok(None), "task", "tk_1");
        assert_eq!(found(true).expect_err("nothing").kind, ProblemKind::NotFound);
        assert_eq!(found(false).expect_err("nothing").kind, ProblemKind::Unavailable);
    }
}
