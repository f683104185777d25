"""Rigid physics of waves: contact, joints, one tick and its rollout, the action, events and interventions."""
