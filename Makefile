# egm-probe: EGM memory regions of NVIDIA Grace hosts.
#
#   make demo      build, show a recorded GB200, and give its memory to a virtual machine
#   make check     run every test and check
#   make vm-test   test with a real kernel, udevd and driver, in a virtual machine
#   make libvirt-test
#                  give domains to a real libvirt and QEMU, and compare what they make of them; as root
#   make guest-test
#                  start guests with a real QEMU, and compare what their kernels see with the plan
#   make cdi-test  read the CDI specifications with the crate that container tools use
#   make bench     compare its speed with other tools
#   make fuzz      run every fuzz target for ten minutes; needs a C++ compiler
#   make faults    make every system call fail in turn; takes half an hour or more, as root
#   make           build
#   make install   as root, with PREFIX and DESTDIR as usual; make uninstall removes it
#   make deb, rpm  build a package for Debian, or for Fedora and derivatives, in target/packages; ARCH=arm64 for Grace
#   make cross-aarch64, check-aarch64
#                  cross-build for Grace; run tests of that program in qemu

PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share/egm-probe
DOCDIR  ?= $(PREFIX)/share/doc/egm-probe
LICENSEDIR ?= $(DOCDIR)
# The directories of udev and systemd, independent of the prefix; if empty, their files are not installed.
UDEVDIR ?= $(or $(shell pkg-config --variable=udevdir udev 2>/dev/null),/usr/lib/udev)
SYSUSERSDIR ?= $(or $(shell pkg-config --variable=sysusersdir systemd 2>/dev/null),/usr/lib/sysusers.d)
# Not named CARGO, which is exported to the script and would make it call itself.
RUN     := ./tools/cargo
GB200   := tests/fixtures/gb200-full-gpu-list
PROGRAM := $(or $(CARGO_TARGET_DIR),target)/release/egm-probe
# Output of the demo: a virtual machine with all EGM memory of the recorded host.
VM      := $(or $(CARGO_TARGET_DIR),target)/vm1.xml
# Architecture of packages: amd64 or arm64; if empty, this machine's.
ARCH    ?=

.PHONY: all build demo check vm-test vm-test-arm64 libvirt-test guest-test cdi-test cross-aarch64 check-aarch64 bench fuzz faults golden \
	install uninstall deb rpm clean

all: build

build:
	$(RUN) build --release --locked

demo:
	./tools/install-deps build
	$(RUN) build --release --locked
	@demo() { echo; printf '%s' '$$'; printf ' %s' "$$@"; echo; "$$@"; }; \
	set -e; \
	demo $(PROGRAM) --from $(GB200) list; \
	demo $(PROGRAM) --from $(GB200) show --gpu 0009:01:00.0; \
	demo cp examples/base.xml $(VM); \
	demo $(PROGRAM) --from $(GB200) stanza --all --complete --domain $(VM) --in-place; \
	demo $(PROGRAM) --from $(GB200) validate $(VM)

# The tests come last: their summary and a list of everything that was skipped are the last lines.
SKIPPED := $(abspath $(or $(CARGO_TARGET_DIR),target)/skipped)
check: export EGM_PROBE_TEST_SKIPPED = $(SKIPPED)
check:
	./tools/install-deps test
	@mkdir -p $(dir $(SKIPPED)) && : >$(SKIPPED)
	./tools/lint
	RUSTDOCFLAGS='-D warnings' $(RUN) doc --locked --no-deps --quiet
	$(RUN) check --locked --quiet --lib --no-default-features
	$(RUN) check --locked --quiet --no-default-features --features cli
	$(RUN) test --locked --quiet --doc
	schemas=$$(./tools/libvirt-schemas $(or $(CARGO_TARGET_DIR),target)/libvirt-schemas) || schemas=; \
		EGM_PROBE_TEST_SCHEMAS=$$schemas $(RUN) test --locked --lib --bins --tests; status=$$?; \
		if [ -s $(SKIPPED) ]; then \
			sort -u $(SKIPPED); \
			echo 'EGM_PROBE_TEST_ALL=1 makes it an error to skip a test'; \
		fi >&2; \
		exit $$status

# Does not need KVM; see tests/vm/README.md.
vm-test:
	./tools/install-deps vm
	$(RUN) build --release --locked
	ROUNDS=$${ROUNDS:-100} ./tests/vm/run amd64 $(PROGRAM)

vm-test-arm64:
	./tools/install-deps vm-arm64
	$(RUN) build --release --locked
	./tools/cargo-aarch64 build --release --locked
	./tests/vm/run arm64

# Builds the crate that container tools use, which has too many dependencies for the other tests.
cdi-test:
	./tools/install-deps build
	$(RUN) build --release --locked
	./tests/cdi/run $(PROGRAM)

# With libvirt and QEMU of Debian unstable, which are downloaded once.
libvirt-test guest-test:
	./tools/install-deps $@
	$(RUN) build --release --locked
	./tests/$(@:-test=)/run $(PROGRAM)

cross-aarch64:
	./tools/install-deps aarch64
	./tools/cargo-aarch64 build --release --locked

check-aarch64: cross-aarch64
	./tests/aarch64 $(or $(CARGO_TARGET_DIR),target)/aarch64-unknown-linux-gnu/release/egm-probe

deb rpm:
	./tools/install-deps $@ $(ARCH)
	./packaging/$@ $(ARCH)

bench:
	./tools/install-deps bench
	$(RUN) build --release --locked
	./benches/run $(PROGRAM)
	./benches/holders.sh $(PROGRAM)
	$(RUN) bench --locked --quiet --bench scaling

# The tests include a short version of both.
fuzz:
	./tools/install-deps build
	./fuzz/run

faults:
	./tools/install-deps test
	./tests/faults

# Regenerates the expected output of the tests; review the difference.
golden:
	UPDATE_GOLDEN=1 $(RUN) test --locked --quiet --test fixtures --test suite
	rsvg-convert --output docs/topology.png docs/topology.svg
	rsvg-convert --output docs/guest.png docs/guest.svg

# Builds nothing, because root may not have a compiler. `uninstall` lists the same files again.
MAN1   := $(wildcard man/*.1)
MAN7   := $(wildcard man/*.7)
SCHEMA := $(wildcard schema/*.json schema/*.rng)
BASH   := $(PREFIX)/share/bash-completion/completions/egm-probe
ZSH    := $(PREFIX)/share/zsh/site-functions/_egm-probe
FISH   := $(PREFIX)/share/fish/vendor_completions.d/egm-probe.fish

install:
	@test -x $(PROGRAM) || { echo 'nothing is built yet: run make first' >&2; exit 1; }
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(BINDIR)/egm-probe
	install -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	install -m 0644 $(MAN1) $(DESTDIR)$(MANDIR)/man1
	install -m 0644 $(MAN7) $(DESTDIR)$(MANDIR)/man7
ifneq ($(UDEVDIR),)
	install -D -m 0644 udev-rules/60-egm.rules $(DESTDIR)$(UDEVDIR)/rules.d/60-egm.rules
	ln -sf $(BINDIR)/egm-probe $(DESTDIR)$(UDEVDIR)/egm-probe
endif
ifneq ($(SYSUSERSDIR),)
	install -D -m 0644 packaging/egm-probe.sysusers $(DESTDIR)$(SYSUSERSDIR)/egm-probe.conf
endif
	install -d $(DESTDIR)$(DATADIR)/schema
	install -m 0644 $(SCHEMA) $(DESTDIR)$(DATADIR)/schema
	install -D -m 0644 completions/egm-probe.bash $(DESTDIR)$(BASH)
	install -D -m 0644 completions/_egm-probe $(DESTDIR)$(ZSH)
	install -D -m 0644 completions/egm-probe.fish $(DESTDIR)$(FISH)
	install -d $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(DOCDIR)/examples/ansible $(DESTDIR)$(DOCDIR)/examples/systemd
	install -m 0644 README.md CHANGELOG.md $(DESTDIR)$(DOCDIR)
	install -m 0644 docs/topology.png docs/guest.png $(DESTDIR)$(DOCDIR)/docs
	install -m 0755 examples/*.sh examples/libvirt-hook $(DESTDIR)$(DOCDIR)/examples
	install -m 0644 examples/*.rs examples/*.xml $(DESTDIR)$(DOCDIR)/examples
	install -m 0644 examples/ansible/*.yml $(DESTDIR)$(DOCDIR)/examples/ansible
	install -m 0755 examples/ansible/egm.fact $(DESTDIR)$(DOCDIR)/examples/ansible
	install -m 0644 examples/systemd/* $(DESTDIR)$(DOCDIR)/examples/systemd
	sed -i 's|/usr/local/bin/|$(BINDIR)/|' $(DESTDIR)$(DOCDIR)/examples/systemd/*.service
	install -d $(DESTDIR)$(LICENSEDIR)
	install -m 0644 LICENSE-APACHE LICENSE-MIT $(DESTDIR)$(LICENSEDIR)

# Keep directories that other programs also use.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/egm-probe \
		$(MAN1:man/%=$(DESTDIR)$(MANDIR)/man1/%) $(MAN7:man/%=$(DESTDIR)$(MANDIR)/man7/%) \
		$(DESTDIR)$(BASH) $(DESTDIR)$(ZSH) $(DESTDIR)$(FISH)
ifneq ($(UDEVDIR),)
	rm -f $(DESTDIR)$(UDEVDIR)/rules.d/60-egm.rules $(DESTDIR)$(UDEVDIR)/egm-probe
endif
ifneq ($(SYSUSERSDIR),)
	rm -f $(DESTDIR)$(SYSUSERSDIR)/egm-probe.conf
endif
	rm -f $(addprefix $(DESTDIR)$(LICENSEDIR)/,LICENSE-APACHE LICENSE-MIT)
	rm -rf $(DESTDIR)$(DATADIR)/schema $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(DOCDIR)/examples
	rm -f $(DESTDIR)$(DOCDIR)/README.md $(DESTDIR)$(DOCDIR)/CHANGELOG.md
	for folder in $(DATADIR) $(DOCDIR) $(LICENSEDIR); do \
		if [ -d $(DESTDIR)$$folder ]; then rmdir --ignore-fail-on-non-empty $(DESTDIR)$$folder; fi; \
	done

clean:
	$(RUN) clean
