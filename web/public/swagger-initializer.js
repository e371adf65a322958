// Swagger UI over /api/openapi.json, for whoever is logged in at /, or with the token that page was given in this tab.
window.onload = async () => {
  const token = sessionStorage.getItem("understudy.token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch("/api/v1/me", { headers });
  const me = answer.ok ? await answer.json() : null;
  if (!me) {
    const hint = document.createElement("p");
    hint.append("The description is for those who are in: ", Object.assign(document.createElement("a"), { href: "/", textContent: "log in here" }), ", then come back in the same tab.");
    document.body.prepend(hint);
    return;
  }
  window.ui = SwaggerUIBundle({
    url: "/api/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "BaseLayout",
    requestInterceptor: (request) => {
      if (token) request.headers.Authorization = `Bearer ${token}`;
      else request.headers["Understudy-Csrf"] = me.session.csrf;
      return request;
    },
  });
};
