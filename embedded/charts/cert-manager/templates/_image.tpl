{{- /* The image of one part. Takes a dict: root (the chart's context), image (the part's values of it). */ -}}
{{- define "image" -}}
{{- $values := .root.Values -}}
{{- $repository := printf "%s/%s/%s" $values.imageRegistry $values.imageNamespace .image.name -}}
{{- printf "%s:%s" (.image.repository | default $repository) (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
