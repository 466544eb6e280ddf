"""What neurons do: interventions on a subject, and what they change."""
