//! From the names that people type to ids.
//!
//! No state. Called by the API and the command line.

use super::{DeviceId, Model, TenantId};
use crate::id::PortId;

/// Why a name names nothing, or too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The text has no slash.
    #[error("`{path}` is not a port: expected DEVICE/PORT, like web/web-1")]
    NotAPath {
        /// What was given.
        path: String,
    },
    /// There is no such tenant.
    #[error("there is no tenant `{tenant}`")]
    UnknownTenant {
        /// What was given.
        tenant: String,
    },
    /// There is no such bridge or router.
    #[error("there is no bridge or router `{device}`")]
    UnknownDevice {
        /// What was given.
        device: String,
    },
    /// The device has no such port.
    #[error("`{device}` has no port `{port}`")]
    UnknownPort {
        /// The device.
        device: String,
        /// What was given.
        port: String,
    },
    /// Several tenants have one.
    #[error("`{path}` exists in several tenants ({}): say which one", tenants.join(", "))]
    Ambiguous {
        /// What was given.
        path: String,
        /// Names of the tenants.
        tenants: Vec<String>,
    },
}

impl Model {
    /// The port `DEVICE/PORT`, in `tenant` or, when only one tenant has it, in any.
    ///
    /// # Errors
    /// [`FindError`], with the tenants to choose from when the name is ambiguous.
    pub fn find_port(&self, tenant: Option<&str>, path: &str) -> Result<PortId, FindError> {
        let (device, port) = path.split_once('/').ok_or_else(|| FindError::NotAPath {
            path: path.to_owned(),
        })?;
        let tenant = tenant.map(|name| self.find_tenant(name)).transpose()?;
        let devices = self.devices_named(tenant, device);
        if devices.is_empty() {
            return Err(FindError::UnknownDevice {
                device: device.to_owned(),
            });
        }
        let found: Vec<_> = self
            .ports
            .values()
            .filter(|it| it.name == port)
            .filter_map(|it| {
                let (_, tenant) = devices.iter().find(|(id, _)| *id == it.device)?;
                Some((it.id, *tenant))
            })
            .collect();
        match found.as_slice() {
            [] => Err(FindError::UnknownPort {
                device: device.to_owned(),
                port: port.to_owned(),
            }),
            [(id, _)] => Ok(*id),
            several => Err(FindError::Ambiguous {
                path: path.to_owned(),
                tenants: several
                    .iter()
                    .map(|(_, tenant)| self.tenant_name(*tenant))
                    .collect(),
            }),
        }
    }

    /// The tenant of this name.
    ///
    /// # Errors
    /// [`FindError::UnknownTenant`].
    pub fn find_tenant(&self, name: &str) -> Result<TenantId, FindError> {
        let found = self.tenants.values().find(|it| it.name == name);
        found
            .map(|it| it.id)
            .ok_or_else(|| FindError::UnknownTenant {
                tenant: name.to_owned(),
            })
    }

    /// Whose a device is.
    pub fn tenant_of(&self, device: DeviceId) -> Option<TenantId> {
        match device {
            DeviceId::Bridge(id) => self.bridges.get(&id).map(|bridge| bridge.tenant),
            DeviceId::Router(id) => self.routers.get(&id).map(|router| router.tenant),
        }
    }

    /// Name of a tenant, or its id when it isn't in the model.
    pub fn tenant_name(&self, id: TenantId) -> String {
        self.tenants
            .get(&id)
            .map_or_else(|| id.to_string(), |it| it.name.clone())
    }

    fn devices_named(&self, tenant: Option<TenantId>, name: &str) -> Vec<(DeviceId, TenantId)> {
        let bridges = self
            .bridges
            .values()
            .map(|it| (DeviceId::Bridge(it.id), &it.name, it.tenant));
        let routers = self
            .routers
            .values()
            .map(|it| (DeviceId::Router(it.id), &it.name, it.tenant));
        bridges
            .chain(routers)
            .filter(|(_, its_name, owner)| {
                *its_name == name && tenant.is_none_or(|it| it == *owner)
            })
            .map(|(id, _, owner)| (id, owner))
            .collect()
    }
}
