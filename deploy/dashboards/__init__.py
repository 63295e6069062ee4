"""Grafana's dashboards as Python. `python -m deploy.dashboards` writes them to `deploy/grafana/dashboards/`.

Plain dictionaries: grafana-foundation-sdk has a version for each of Grafana's, of which pip takes an old one, and every
panel would still want what `Panel` is.
"""
