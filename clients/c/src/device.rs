//! Which device a report is about.

use ttmem_wire::DEVICE_ID_MAX;

use crate::outcome::Status;

/// The index, if it is one.
#[inline]
pub(crate) fn device(index: i32) -> Result<u16, Status> {
    match u16::try_from(index) {
        Ok(device) if index <= DEVICE_ID_MAX => Ok(device),
        _ => Err(Status::Device),
    }
}
