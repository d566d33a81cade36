//! Opens objects, gives them their constants and maps, and loads them: once, or not at all when a pinned generation
//! fits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject};

use super::generation::{Fingerprint, Generation};
use super::{Constants, Program, ProgramSet, bpffs, libbpf_log, map_layout};
use crate::maps::btf::Btf;
use crate::sys::{object, prog};
use crate::{Error, Result};

/// A compiled object: a name of at most 8 bytes (the kernel keeps no more of it in the names of `.rodata` and `.bss`)
/// and its ELF image.
#[derive(Clone, Copy)]
pub struct ObjectImage<'a> {
    name: &'a str,
    elf: &'a [u8],
}

impl<'a> ObjectImage<'a> {
    /// An object of this name with this ELF image.
    pub const fn new(name: &'a str, elf: &'a [u8]) -> Self {
        Self { name, elf }
    }

    /// Its name.
    pub const fn name(&self) -> &'a str {
        self.name
    }
}

/// How a set of objects is to be loaded.
///
/// Maps that ask to be pinned by name (`LIBBPF_PIN_BY_NAME`) are shared: one that is pinned already is compared with
/// what the object declares and then used, one that is not is created and pinned. Objects are taken in the order given,
/// so that the one that declares every map comes first.
#[derive(Clone, Default)]
pub struct Loader<'a> {
    images: Vec<ObjectImage<'a>>,
    constants: Constants,
    max_entries: BTreeMap<String, u32>,
    map_pins: PathBuf,
}

impl<'a> Loader<'a> {
    /// Nothing to load yet. `map_pins` is the directory of the pinned maps, on a bpffs.
    pub fn new(map_pins: impl Into<PathBuf>) -> Self {
        Self { map_pins: map_pins.into(), ..Self::default() }
    }

    /// Adds an object.
    pub fn object(mut self, image: ObjectImage<'a>) -> Self {
        self.images.push(image);
        self
    }

    /// Sets the constants. Each must be declared by at least one object; an object gets those that it declares.
    pub fn constants(mut self, constants: Constants) -> Self {
        self.constants = constants;
        self
    }

    /// Sets the size of a map, in whichever objects declare it.
    pub fn max_entries(mut self, map: impl Into<String>, entries: u32) -> Self {
        self.max_entries.insert(map.into(), entries);
        self
    }

    /// Loads the objects. Programs and unshared maps live as long as the result, or what is attached or pinned from it.
    ///
    /// # Errors
    ///
    /// [`Error::LayoutMismatch`] for a pinned map of another layout, [`Error::InvalidInput`] for a constant that no
    /// object declares or that has another size and for the size of a map that no object declares, [`Error::Verifier`]
    /// with the end of the verifier's log, [`Error::PermissionDenied`] without the capabilities. Pins made by a call
    /// that fails are removed again.
    pub fn load(&self) -> Result<ProgramSet> {
        let (set, pins) = self.load_opened(self.open()?)?;
        pins.keep();
        Ok(set)
    }

    /// Adopts the programs pinned below `programs` by an earlier call with the same objects, constants and maps, or
    /// else loads and pins them there. Other generations are left alone: see [`Generation::remove_others`].
    ///
    /// Adopting verifies and loads nothing.
    ///
    /// # Errors
    ///
    /// As [`Loader::load`].
    pub fn load_or_adopt(&self, programs: &Path) -> Result<ProgramSet> {
        let opened = self.open()?;
        if let Some(generation) = self.pinned_generation(&opened)?
            && let Some(set) = self.adopt(&programs.join(generation.as_str()), &opened)?
        {
            return Ok(set.with_generation(generation));
        }
        let (set, pins) = self.load_opened(opened)?;
        set.pin(programs)?;
        pins.keep();
        Ok(set)
    }

    fn open(&self) -> Result<Vec<Opened>> {
        let mut undeclared: BTreeSet<&str> = self.constants.iter().map(|(name, _)| name).collect();
        let mut unsized_maps: BTreeSet<&str> = self.max_entries.keys().map(String::as_str).collect();
        let mut opened = Vec::with_capacity(self.images.len());
        for image in &self.images {
            let mut object = open_image(image)?;
            let missing: BTreeSet<&str> = self.constants.apply(&mut object, image.name)?.into_iter().collect();
            undeclared.retain(|name| missing.contains(name));
            let shared = self.prepare_maps(&mut object, &mut unsized_maps)?;
            opened.push(Opened { name: image.name.to_owned(), object, shared });
        }
        if let Some(name) = undeclared.first() {
            return Err(Error::invalid("constant", *name, format!("no such variable in {}", self.names())));
        }
        if let Some(name) = unsized_maps.first() {
            return Err(Error::invalid("max_entries of map", *name, format!("no such map in {}", self.names())));
        }
        Ok(opened)
    }

    /// Applies the sizes, and compares what is pinned; the names of the shared maps come back.
    fn prepare_maps(&self, object: &mut OpenObject, unsized_maps: &mut BTreeSet<&str>) -> Result<Vec<String>> {
        let mut shared = Vec::new();
        let types = object::btf_bytes(object);
        let types = Btf::parse(&types);
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if let Some(&entries) = self.max_entries.get(&name) {
                map.set_max_entries(entries).map_err(|error| libbpf_error("size map", &name, &error))?;
                unsized_maps.remove(name.as_str());
            }
            if object::take_pin_by_name(&mut map).map_err(|error| Error::system("prepare map", &name, error))? {
                let path = self.map_pins.join(&name);
                if path.exists() {
                    map_layout::compare(&map, types.as_ref(), &path)?;
                }
                shared.push(name);
            }
        }
        Ok(shared)
    }

    /// The generation that the maps as they are pinned now would give; nothing when one of them is missing.
    fn pinned_generation(&self, opened: &[Opened]) -> Result<Option<Generation>> {
        let mut fingerprint = self.fingerprint();
        for name in shared_names(opened) {
            match open_map(&self.map_pins.join(&name))? {
                Some(map) => fingerprint.map(&name, map_id(&map, &name)?),
                None => return Ok(None),
            }
        }
        Ok(Some(fingerprint.finish()))
    }

    /// Everything that the objects declare, opened by its pin; nothing when one of them is missing.
    fn adopt(&self, generation: &Path, opened: &[Opened]) -> Result<Option<ProgramSet>> {
        let mut set = ProgramSet::adopted_from(generation);
        for entry in opened {
            for program in entry.object.progs() {
                if !set.adopt_program(&program.name().to_string_lossy())? {
                    return Ok(None);
                }
            }
            for map in entry.object.maps() {
                let name = map.name().to_string_lossy().into_owned();
                let shared = entry.shared.contains(&name).then(|| self.map_pins.join(&name));
                if !set.adopt_map(&name, shared.as_deref())? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(set))
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::new();
        for image in &self.images {
            fingerprint.object(image.name, image.elf);
        }
        for (name, bytes) in self.constants.iter() {
            fingerprint.constant(name, bytes);
        }
        fingerprint
    }

    fn load_opened(&self, opened: Vec<Opened>) -> Result<(ProgramSet, NewPins)> {
        bpffs::require(&self.map_pins, "pin maps")?;
        fs::create_dir_all(&self.map_pins)
            .map_err(|error| Error::system("create directory", self.map_pins.display().to_string(), error))?;
        let mut pins = NewPins::default();
        let mut set = ProgramSet::default();
        let mut fingerprint = self.fingerprint();
        let shared = shared_names(&opened);
        for mut entry in opened {
            self.reuse_pinned(&mut entry)?;
            let object = load_object(entry.object, &entry.name)?;
            self.take_maps(&object, &entry.shared, &mut set, &mut pins)?;
            for program in object.progs() {
                let name = program.name().to_string_lossy().into_owned();
                let fd = program
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| Error::system("duplicate descriptor of program", &name, error))?;
                set.insert_program(Program::from_fd(fd, name)?);
            }
        }
        for name in shared {
            if let Some(map) = set.map(&name) {
                fingerprint.map(&name, map_id(map, &name)?);
            }
        }
        Ok((set.with_generation(fingerprint.finish()), pins))
    }

    fn reuse_pinned(&self, entry: &mut Opened) -> Result<()> {
        for mut map in entry.object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if !entry.shared.contains(&name) {
                continue;
            }
            if let Some(pinned) = open_map(&self.map_pins.join(&name))? {
                map.reuse_fd(pinned.as_fd()).map_err(|error| libbpf_error("reuse map", &name, &error))?;
            }
        }
        Ok(())
    }

    fn take_maps(&self, object: &Object, shared: &[String], set: &mut ProgramSet, pins: &mut NewPins) -> Result<()> {
        for map in object.maps() {
            let name = map.name().to_string_lossy().into_owned();
            let handle = MapHandle::try_from(&map).map_err(|error| libbpf_error("duplicate map", &name, &error))?;
            if shared.contains(&name) {
                pins.pin(&handle, self.map_pins.join(&name))?;
                set.insert_shared_map(name, handle);
            } else {
                set.insert_own_map(name, handle);
            }
        }
        Ok(())
    }

    fn names(&self) -> String {
        self.images.iter().map(|image| image.name).collect::<Vec<_>>().join(", ")
    }
}

/// An object that is open and has its constants and sizes.
struct Opened {
    name: String,
    object: OpenObject,
    shared: Vec<String>,
}

/// Pins made by one load; removed again unless it is completed.
#[derive(Default)]
struct NewPins(Vec<PathBuf>);

impl NewPins {
    fn pin(&mut self, map: &MapHandle, path: PathBuf) -> Result<()> {
        match prog::pin(map.as_fd(), &path) {
            Ok(()) => self.0.push(path),
            // The map was opened from this pin.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::system("pin map at", path.display().to_string(), error)),
        }
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewPins {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = fs::remove_file(path) {
                log::warn!("remove pin {}: {error}", path.display());
            }
        }
    }
}

/// The map pinned at a path, or nothing when there is no pin.
pub(super) fn open_map(path: &Path) -> Result<Option<MapHandle>> {
    if !path.exists() {
        return Ok(None);
    }
    MapHandle::from_pinned_path(path)
        .map(Some)
        .map_err(|error| libbpf_error("open pinned map", &path.display().to_string(), &error))
}

/// A failure of libbpf-rs in this crate's terms.
pub(super) fn libbpf_error(op: &'static str, name: &str, error: &libbpf_rs::Error) -> Error {
    Error::system(op, name, io::Error::other(format!("{error:#}")))
}

fn map_id(map: &MapHandle, name: &str) -> Result<u32> {
    map.info().map(|info| info.info.id).map_err(|error| libbpf_error("inspect map", name, &error))
}

/// Every shared map once, in the order of their names.
fn shared_names(opened: &[Opened]) -> BTreeSet<String> {
    opened.iter().flat_map(|object| object.shared.iter().cloned()).collect()
}

fn open_image(image: &ObjectImage<'_>) -> Result<OpenObject> {
    let (result, messages) = libbpf_log::capture(|| {
        let mut builder = ObjectBuilder::default();
        builder.name(image.name)?.open_memory(image.elf)
    });
    result.map_err(|error| Error::Verifier {
        program: format!("object {}", image.name),
        source: io::Error::other(error.to_string()),
        log: libbpf_log::explain(&messages),
    })
}

fn load_object(object: OpenObject, name: &str) -> Result<Object> {
    let (result, messages) = libbpf_log::capture(|| object::load(object));
    result.inspect(|_| libbpf_log::forward(&messages)).map_err(|error| {
        if error.raw_os_error() == Some(libc::EPERM) && !libbpf_log::has_verifier_log(&messages) {
            return Error::PermissionDenied {
                op: "load object",
                object: name.to_owned(),
                remedy: "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".into(),
            };
        }
        let object = format!("object {name}");
        let program = match libbpf_log::refused_program(&messages) {
            Some(program) => format!("{program} of {object}"),
            None => object,
        };
        Error::Verifier { program, source: error, log: libbpf_log::explain(&messages) }
    })
}
