//! What assembling a crew would do, worked out without doing it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fault::{Code, Fault, quoted};
use crate::nearest::nearest;
use crate::{Bytes, Channel, ChannelKind, Cpu, Crew, Member, Name, Profile, Protocol, Rate, Resources};

/// What a plan needs to know of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSummary {
    /// The version that would be used.
    pub version: u64,
    /// The digest of its bundle, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How its handler is driven.
    pub protocol: Protocol,
    /// How many tasks one of its agents works on at once.
    pub concurrency: u32,
    /// What one of its agents may use.
    pub resources: Resources,
    /// The runtime that runs its agents, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
}

impl ProfileSummary {
    /// The summary of a profile that has not been applied yet and so has no version.
    pub fn of(profile: &Profile) -> Self {
        Self {
            version: 0,
            digest: None,
            protocol: profile.spec.handler.protocol,
            concurrency: profile.spec.handler.concurrency,
            resources: profile.spec.resources.clone(),
            runtime_class: profile.spec.runtime_class.clone(),
        }
    }
}

/// What assembling a crew would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The crew's name.
    pub crew: Name,
    /// The member that receives the crew's tasks.
    pub entry: Name,
    /// The members in the order of the manifest.
    pub members: Vec<PlannedMember>,
    /// Who may say what to whom.
    pub matrix: Matrix,
    /// What all agents together would be.
    pub total: Total,
    /// What stands in the way. They name fields of the crew manifest but no place in a file.
    pub faults: Vec<Fault>,
}

/// A member as it would be assembled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMember {
    /// The member's name.
    pub name: Name,
    /// The name of its profile.
    pub profile: Name,
    /// How many agents.
    pub replicas: u32,
    /// The profile, where there is one of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<ProfileSummary>,
}

/// Sums over all agents whose profile is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    /// Agents, those of unknown profiles included.
    pub agents: u32,
    /// Tasks that may be worked on at once.
    pub concurrency: u32,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Bytes,
    /// Work directories.
    pub work: Bytes,
    /// Processes and threads.
    pub pids: u32,
}

/// The communication matrix: rows send, columns receive, both in the order of the members. What
/// has no edge is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matrix {
    /// The members: the headings of rows and columns.
    pub members: Vec<Name>,
    /// One row per sender with one cell per receiver; a cell has the channels between the two, none
    /// where all is denied.
    pub rows: Vec<Vec<Vec<Edge>>>,
}

/// A channel in a cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// What it carries.
    pub kinds: Vec<ChannelKind>,
    /// How deep a chain of delegations may be across it.
    pub max_depth: u32,
    /// How wide one task or message may fan out over it.
    pub max_fan_out: u32,
    /// How much one sender may put on it.
    pub rate: Rate,
}

impl Matrix {
    /// The matrix of a crew.
    pub fn of(members: &[Member], channels: &[Channel]) -> Self {
        let between = |from: &Member, to: &Member| {
            let edges = channels.iter().filter(|channel| channel.from == from.name && channel.to == to.name);
            edges.map(Edge::of).collect()
        };
        let row = |from| members.iter().map(|to| between(from, to)).collect();
        Self {
            members: members.iter().map(|member| member.name.clone()).collect(),
            rows: members.iter().map(row).collect(),
        }
    }
}

impl Edge {
    fn of(channel: &Channel) -> Self {
        Self {
            kinds: channel.kinds.clone(),
            max_depth: channel.max_depth,
            max_fan_out: channel.max_fan_out,
            rate: channel.rate,
        }
    }
}

/// Works out what assembling a crew would do, given the profiles of its tenant by name.
pub fn plan(crew: &Crew, profiles: &BTreeMap<Name, ProfileSummary>) -> Plan {
    let spec = &crew.spec;
    let mut total = Total::default();
    let mut faults = Vec::new();
    let mut members = Vec::with_capacity(spec.members.len());
    for (index, member) in spec.members.iter().enumerate() {
        let summary = profiles.get(&member.profile);
        total.add(member.replicas, summary);
        if summary.is_none() {
            faults.push(unknown(index, &member.profile, profiles));
        }
        members.push(PlannedMember {
            name: member.name.clone(),
            profile: member.profile.clone(),
            replicas: member.replicas,
            summary: summary.cloned(),
        });
    }
    Plan {
        crew: crew.metadata.name.clone(),
        entry: spec.entry.clone(),
        members,
        matrix: Matrix::of(&spec.members, &spec.channels),
        total,
        faults,
    }
}

impl Total {
    fn add(&mut self, replicas: u32, summary: Option<&ProfileSummary>) {
        self.agents += replicas;
        let Some(ProfileSummary { concurrency, resources, .. }) = summary else { return };
        let count = u64::from(replicas);
        self.concurrency += concurrency * replicas;
        self.cpu = Cpu::from_millicores(self.cpu.as_millicores() + resources.cpu.as_millicores() * count);
        self.memory = Bytes::new(self.memory.as_bytes() + resources.memory.as_bytes() * count);
        self.work = Bytes::new(self.work.as_bytes() + resources.work.as_bytes() * count);
        self.pids += resources.pids * replicas;
    }
}

fn unknown(index: usize, profile: &Name, profiles: &BTreeMap<Name, ProfileSummary>) -> Fault {
    /// The most names that a fault lists.
    const LISTED_MAX: usize = 20;
    let names = || profiles.keys().map(Name::as_str);
    let mut listed = names().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    if profiles.len() > LISTED_MAX {
        listed += &format!(" and {} more", profiles.len() - LISTED_MAX);
    }
    let expected = match profiles.is_empty() {
        true => "no profile was applied yet; apply it with `hypercode profile apply FILE`".to_owned(),
        false => format!("the profiles are {listed}"),
    };
    unknown_profile(index, profile, expected).nearest(nearest(profile, names()))
}

/// That the member at this index of a crew is of a profile that nobody has applied.
pub fn unknown_profile(index: usize, profile: &Name, expected: impl Into<String>) -> Fault {
    Fault::error(Code::UnknownProfile, format!("spec.members[{index}].profile"), expected)
        .found(quoted(profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, parse};

    fn design() -> (Crew, ProfileSummary) {
        let parsed = parse("design.yaml", include_bytes!("../testdata/design.yaml"));
        let [Manifest::Crew(crew), Manifest::Profile(profile)] = &parsed.manifests[..] else {
            panic!("a crew and a profile: {parsed:?}");
        };
        (crew.clone(), ProfileSummary::of(profile))
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn sums_agents_and_resources() {
        let (crew, summary) = design();
        let profiles = ["scout", "analyst", "editor"].map(|profile| (name(profile), summary.clone()));
        let plan = plan(&crew, &profiles.into());
        assert_eq!(plan.faults, []);
        assert_eq!((plan.total.agents, plan.total.concurrency, plan.total.pids), (5, 5, 320));
        assert_eq!(plan.total.cpu, Cpu::from_millicores(2_500));
        assert_eq!(plan.total.memory, Bytes::from_mebibytes(5 * 256));
    }

    #[test]
    fn the_matrix_denies_by_default() {
        let (crew, _) = design();
        let matrix = plan(&crew, &BTreeMap::new()).matrix;
        let kinds: Vec<Vec<Vec<ChannelKind>>> = matrix
            .rows
            .iter()
            .map(|row| {
                row.iter().map(|cell| cell.iter().flat_map(|edge| edge.kinds.clone()).collect()).collect()
            })
            .collect();
        let (task, message, none) = (vec![ChannelKind::Task], vec![ChannelKind::Message], vec![]);
        assert_eq!(matrix.members, ["scout", "analyst", "editor"].map(name));
        assert_eq!(
            kinds,
            [
                [none.clone(), task.clone(), task],
                [none.clone(), none.clone(), message],
                [none.clone(), none.clone(), none],
            ]
        );
        assert_eq!((matrix.rows[0][1][0].max_depth, matrix.rows[0][1][0].rate), (2, Rate::per_second(200)));
    }

    #[test]
    fn an_unknown_profile_is_a_fault_with_the_nearest() {
        let (crew, summary) = design();
        let profiles =
            [(name("scout"), summary.clone()), (name("analist"), summary.clone()), (name("editor"), summary)];
        let plan = plan(&crew, &profiles.into());
        assert_eq!(plan.total.agents, 5);
        assert_eq!(plan.total.concurrency, 2);
        let listed: Vec<String> = plan.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            listed,
            ["error: spec.members[1].profile: unknown profile \"analyst\"; \
              the profiles are analist, editor, scout (did you mean \"analist\"?)"]
        );
    }
}
