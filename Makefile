# egm-probe: EGM memory regions of NVIDIA Grace hosts.
#
#   make demo      build, and show a recorded GB200
#   make check     every test and check
#   make vm-test   the program beside a kernel, a udevd and a driver, in a virtual machine
#   make bench     how fast it is, beside other tools
#   make fuzz      every fuzz target for ten minutes; needs a C++ compiler
#   make faults    every system call of every command fails; takes half an hour or more, as root
#   make           build
#   make install   as root; PREFIX and DESTDIR as usual

PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share/egm-probe
# Where udev looks, whatever the prefix; empty leaves its rules out.
UDEVDIR ?= /usr/lib/udev
# Not CARGO: that one is exported to the script, which would find itself.
RUN     := ./tools/cargo
GB200   := tests/fixtures/claims-vm/host.tar.gz
PROGRAM := $(or $(CARGO_TARGET_DIR),target)/release/egm-probe

.PHONY: all build demo check vm-test vm-test-arm64 bench fuzz faults golden install uninstall clean

all: build

build:
	$(RUN) build --release --locked

demo:
	./tools/install-deps build
	$(RUN) build --release --locked
	@printf '\n$$ egm-probe list\n'
	@$(PROGRAM) --from $(GB200) list
	@printf '\n$$ egm-probe show egm4\n'
	@$(PROGRAM) --from $(GB200) show egm4

# The tests come last: their own summary is the last line.
check:
	./tools/install-deps test
	./tools/lint
	RUSTDOCFLAGS='-D warnings' $(RUN) doc --locked --no-deps --quiet
	$(RUN) check --locked --quiet --lib --no-default-features
	$(RUN) check --locked --quiet --no-default-features --features cli
	$(RUN) test --locked --quiet --doc
	$(RUN) test --locked --lib --bins --tests

# Needs no KVM; tests/vm/README.md says more.
vm-test:
	./tools/install-deps vm
	$(RUN) build --release --locked
	./tests/vm/run amd64 $(PROGRAM)

vm-test-arm64:
	./tools/install-deps vm-arm64
	$(RUN) build --release --locked
	./tests/vm/build-arm64
	./tests/vm/run arm64

bench:
	./tools/install-deps bench
	$(RUN) build --release --locked
	./benches/run $(PROGRAM)
	./benches/holders.sh $(PROGRAM)
	$(RUN) bench --locked --quiet --bench scaling

# Both are part of the tests, in short.
fuzz:
	./tools/install-deps build
	./fuzz/run

faults:
	./tools/install-deps test
	./tests/faults

# Writes anew what the tests hold the program against; read the difference.
golden:
	UPDATE_FIXTURES=1 UPDATE_GOLDEN=1 $(RUN) test --locked --quiet --test suite
	rsvg-convert --output docs/topology.png docs/topology.svg

# Builds nothing: root need not have a compiler.
install:
	@test -x $(PROGRAM) || { echo 'nothing is built yet: run make first' >&2; exit 1; }
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(BINDIR)/egm-probe
	install -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	install -m 0644 man/*.1 $(DESTDIR)$(MANDIR)/man1
	install -m 0644 man/*.7 $(DESTDIR)$(MANDIR)/man7
ifneq ($(UDEVDIR),)
	install -D -m 0644 udev-rules/60-egm.rules $(DESTDIR)$(UDEVDIR)/rules.d/60-egm.rules
	ln -sf $(BINDIR)/egm-probe $(DESTDIR)$(UDEVDIR)/egm-probe
endif
	install -d $(DESTDIR)$(DATADIR)/schema
	install -m 0644 schema/*.json schema/*.rng $(DESTDIR)$(DATADIR)/schema
	install -D -m 0644 completions/egm-probe.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/egm-probe
	install -D -m 0644 completions/_egm-probe \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_egm-probe
	install -D -m 0644 completions/egm-probe.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/egm-probe.fish

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/egm-probe \
		$(patsubst man/%,$(DESTDIR)$(MANDIR)/man1/%,$(wildcard man/*.1)) \
		$(patsubst man/%,$(DESTDIR)$(MANDIR)/man7/%,$(wildcard man/*.7)) \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/egm-probe \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_egm-probe \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/egm-probe.fish
ifneq ($(UDEVDIR),)
	rm -f $(DESTDIR)$(UDEVDIR)/rules.d/60-egm.rules $(DESTDIR)$(UDEVDIR)/egm-probe
endif
	rm -rf $(DESTDIR)$(DATADIR)/schema
	-rmdir --ignore-fail-on-non-empty $(DESTDIR)$(DATADIR)

clean:
	$(RUN) clean
