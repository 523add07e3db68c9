//! Maps of shared objects, written as if they weren't shared (serde's `rc` feature is off).
//!
//! No state. Named by `#[serde(with)]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn serialize<S, K, T>(map: &BTreeMap<K, Arc<T>>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    K: Serialize,
    T: Serialize,
{
    serializer.collect_map(map.iter().map(|(id, object)| (id, &**object)))
}

pub fn deserialize<'de, D, K, T>(deserializer: D) -> Result<BTreeMap<K, Arc<T>>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    T: Deserialize<'de>,
{
    let map = BTreeMap::<K, T>::deserialize(deserializer)?;
    Ok(map
        .into_iter()
        .map(|(id, object)| (id, Arc::new(object)))
        .collect())
}
