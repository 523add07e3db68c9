//! Where in a file each object and each of its fields was written, so that what the model refuses
//! is shown there.

use std::collections::HashMap;

use uuid::Uuid;
use weft_vnet::{Invalid, Kind, Operation};

use crate::topology::{Mistake, Mistakes, Span, TopologyFile};

/// The places of everything that a file mentions.
#[derive(Debug, Default)]
pub(super) struct Places {
    objects: HashMap<(Kind, Uuid), Vec<(String, Span)>>,
}

impl Places {
    /// Records a place: of the object itself (its name) with an empty pointer, or of a field.
    pub(super) fn add(&mut self, kind: Kind, id: Uuid, pointer: impl Into<String>, span: Span) {
        self.objects
            .entry((kind, id))
            .or_default()
            .push((pointer.into(), span));
    }

    /// Where a field was written, or what it is part of.
    pub(super) fn find(&self, kind: Kind, id: Uuid, pointer: &str) -> Option<Span> {
        let fields = self.objects.get(&(kind, id))?;
        let covers = |known: &str| {
            pointer
                .strip_prefix(known)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let best = fields.iter().filter(|(known, _)| covers(known));
        best.max_by_key(|(known, _)| known.len())
            .map(|(_, span)| *span)
    }

    /// What the model refuses, at its places.
    pub(super) fn mistakes(
        &self,
        file: &TopologyFile,
        operations: &[Operation],
        invalid: &[Invalid],
    ) -> Mistakes {
        Mistakes::new(
            invalid
                .iter()
                .map(|one| self.mistake(file, operations, one))
                .collect(),
        )
    }

    fn mistake(&self, file: &TopologyFile, operations: &[Operation], invalid: &Invalid) -> Mistake {
        let (kind, id, name) = match operations.get(invalid.operation) {
            Some(Operation::Put(object)) => (object.kind(), object.id(), object.name()),
            Some(Operation::Delete { kind, id }) => (*kind, *id, ""),
            Some(Operation::Members { group, .. }) => (Kind::AddressGroup, group.0, ""),
            None => return file.mistake(start(), invalid.message.clone()),
        };
        match self.find(kind, id, &invalid.pointer) {
            Some(span) => file.mistake(span, invalid.message.clone()),
            // Changed along with what the file mentions, or deleted: it has no place of its own.
            None => file.mistake(start(), format!("{kind} {name}: {}", invalid.message)),
        }
    }
}

fn start() -> Span {
    Span {
        start: 0,
        end: 0,
        line: 1,
        column: 1,
    }
}
