"""Objects of OpenShift, its operators and OpenShift AI, as plain dicts."""
