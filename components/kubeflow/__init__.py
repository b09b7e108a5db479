"""Kubeflow Pipelines' REST API, v2beta1, as far as Driftline asks it: the one client of commands and monitor.

- `client`: what is asked, with types: pipelines, versions, experiments, runs, recurring runs.
- `connection`: how it is asked: HTTP, time-outs, retries, and a stand-in that only says what would be sent.
- `refusals`: what the server answers instead, each as one line.
- `logins`: who asks: nobody, a bearer token, a pod's own token, a browser's cookies, Google's Identity-Aware Proxy.
"""
