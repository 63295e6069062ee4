PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check bench chaos lock clean

demo: $(STAMP)  ## the whole pipeline on generated data; prints what happened
	$(BIN)/tillstream demo

test: $(STAMP)  ## every test, against a real Kafka and a real PostgreSQL
	$(BIN)/pytest -n 3 --dist loadfile

check: $(STAMP)  ## all static checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@found=$$($(BIN)/pip-audit --vulnerability-service osv --requirement constraints.txt --require-hashes \
		--disable-pip --progress-spinner off 2>&1) && echo "pip-audit: nothing known" || case "$$found" in \
		*ConnectionError*|*Timeout*) echo "pip-audit: its database cannot be reached from here; nothing was audited" ;; \
		*) echo "$$found"; exit 1 ;; esac

bench: $(STAMP)  ## measures, with limits taken in the same run; not a test
	$(BIN)/tillstream bench

chaos: $(STAMP)  ## breaks a stack of its own and proves that nothing is lost: make chaos MINUTES=5 SEED=7
	$(BIN)/tillstream chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

$(STAMP): constraints.txt pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

lock: $(STAMP)  ## pins every dependency with its hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra s3 --extra tracing --constraints constraints.txt --generate-hashes --universal \
		--python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		-o deploy/requirements.txt

clean:
	rm -rf .venv
