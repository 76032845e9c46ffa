//! The laws of the platform: ids, and what each means in one sentence.

use std::fmt;

macro_rules! laws {
    ($($id:ident = $name:literal : $meaning:literal),+ $(,)?) => {
        /// A law: named in code, tests and documents by its id.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Law {
            $(#[doc = $meaning] $id),+
        }
        impl Law {
            /// Every law.
            pub const ALL: &'static [Self] = &[$(Self::$id),+];
            /// Its id, such as `ES-1`.
            pub fn id(self) -> &'static str { match self { $(Self::$id => $name),+ } }
            /// What it means.
            pub fn meaning(self) -> &'static str { match self { $(Self::$id => $meaning),+ } }
        }
    };
}

laws! {
    Es1 = "ES-1": "Positions are contiguous and in commit order.",
    Es2 = "ES-2": "An append is all or nothing.",
    Es3 = "ES-3": "An answered append is durable.",
    Es4 = "ES-4": "The expected version holds under concurrent writers.",
    Es5 = "ES-5": "The same command id gives the first outcome.",
    Es6 = "ES-6": "A reader that stops and resumes misses and repeats nothing.",
    Es7 = "ES-7": "The chain verifies; a changed byte is found.",
    Es8 = "ES-8": "A stale epoch is refused.",
    Sb1 = "SB-1": "A sandbox serves at most one incarnation, ever.",
    Sb2 = "SB-2": "Nothing of a standby sandbox names an agent or holds a secret.",
    Sb3 = "SB-3": "Every sandbox that runs is owned by a live incarnation or a pool, or is removed within 60 s of being found.",
    Tk1 = "TK-1": "An accepted task ends in exactly one terminal state.",
    Tk2 = "TK-2": "At most one attempt's result is accepted.",
    Ch1 = "CH-1": "No message crosses without a channel.",
    Ch2 = "CH-2": "No message is delivered before its event is durable.",
    Ch3 = "CH-3": "The sender named on a message is the authenticated one.",
    Sv1 = "SV-1": "An agent that dies is recovered or given up by its strategy, never forgotten.",
    Sv2 = "SV-2": "The restart budget survives a restart of the platform.",
    Id1 = "ID-1": "An agent's token dies with its incarnation, at once.",
    Id2 = "ID-2": "No secret or token appears in an event, a log line, a trace or an error.",
    Gy1 = "GY-1": "An agent without a valid certificate for its exact digest is not started where the crew requires one.",
    Rp1 = "RP-1": "Replaying the log from zero gives the projections byte for byte.",
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id(), self.meaning())
    }
}
