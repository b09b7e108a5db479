"""The client of Kubeflow Pipelines' REST API, v2beta1, for the commands and the monitor.

- `client`: typed calls: pipelines, versions, experiments, runs, recurring runs.
- `connection`: HTTP, time-outs, retries, and a dry run that only shows what would be sent.
- `refusals`: the server's error answers, each as one line.
- `logins`: no login, a bearer token, a pod's own token, a browser's cookies, Google's Identity-Aware Proxy.
"""
