"""The site that people browse: every neuron in a table, and a page for each, as static files.

    site/
      index.html            the browser: a table of all neurons, and a view of each
      app/                  its scripts and style
      data/index.js         what there is: layers, types, explainers, counts
      data/table/           the table's columns, a file a layer
      data/accounts/        the same for each explainer with its simulator
      data/words/           the explanations that the table shows and searches, a file a layer
      data/neurons/         all that is said of each neuron, CHUNK neurons a file
      data/samples/         tokens and sizes of the samples, SAMPLE_CHUNK a file
      images/               every image once, named by its content

A page that was opened from a folder may load scripts and images, and nothing else; so all data are
scripts that hand one value to a function (`script.py`), and each is loaded when it is looked at.
"""
