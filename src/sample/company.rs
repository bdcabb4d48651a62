//! The made-up company: a bookshop, its teams, their services and words.

/// The domain of everything that has one; reserved for examples (RFC 2606).
pub(super) const DOMAIN: &str = "fernhill.example";

/// A team and the services it runs.
pub(super) struct Team {
    pub(super) name: &'static str,
    pub(super) cost_centre: &'static str,
    pub(super) services: &'static [Service],
}

/// A service of a team.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// It keeps data on volumes of its own.
    pub(super) is_stateful: bool,
    /// It is reached from outside.
    pub(super) is_public: bool,
}

const fn app(name: &'static str) -> Service {
    Service { name, is_stateful: false, is_public: false }
}

const fn public(name: &'static str) -> Service {
    Service { name, is_stateful: false, is_public: true }
}

const fn stateful(name: &'static str) -> Service {
    Service { name, is_stateful: true, is_public: false }
}

pub(super) const TEAMS: [Team; 10] = [
    Team {
        name: "checkout",
        cost_centre: "1100",
        services: &[public("basket-api"), stateful("basket-store"), app("pricing"), app("vouchers"), app("gift-wrap")],
    },
    Team {
        name: "catalogue",
        cost_centre: "1200",
        services: &[public("books-api"), stateful("books-db"), app("covers"), app("importer"), app("reviews")],
    },
    Team {
        name: "search",
        cost_centre: "1300",
        services: &[public("search-api"), stateful("search-index"), app("suggest"), app("indexer"), app("synonyms")],
    },
    Team {
        name: "payments",
        cost_centre: "1400",
        services: &[public("payments-api"), stateful("ledger"), app("fraud-check"), app("refunds"), app("invoices")],
    },
    Team {
        name: "delivery",
        cost_centre: "1500",
        services: &[public("tracking"), stateful("parcels-db"), app("routes"), app("labels"), app("couriers")],
    },
    Team {
        name: "accounts",
        cost_centre: "1600",
        services: &[public("login"), stateful("sessions"), app("profiles"), app("wish-lists"), app("consents")],
    },
    Team {
        name: "warehouse",
        cost_centre: "1700",
        services: &[app("stock"), stateful("stock-db"), app("picking"), app("returns"), app("suppliers")],
    },
    Team {
        name: "insights",
        cost_centre: "1800",
        services: &[app("events"), stateful("event-log"), app("reports"), app("recommendations"), app("experiments")],
    },
    Team {
        name: "web",
        cost_centre: "1900",
        services: &[
            public("storefront"),
            stateful("page-cache"),
            app("images"),
            app("newsletter"),
            public("help-centre"),
        ],
    },
    Team {
        name: "platform",
        cost_centre: "2000",
        services: &[app("mailer"), stateful("queue"), app("scheduler"), app("audit"), public("status-page")],
    },
];

/// Words that settings, flags and files are named with.
pub(super) const WORDS: [&str; 40] = [
    "batch", "cache", "carrier", "currency", "customer", "deadline", "delivery", "discount", "edition", "export",
    "feature", "fallback", "gateway", "genre", "history", "import", "invoice", "language", "limit", "locale",
    "loyalty", "margin", "order", "page", "parcel", "partner", "price", "queue", "rating", "refund", "region",
    "report", "retry", "season", "series", "shelf", "stock", "tax", "title", "window",
];

/// Where nodes stand.
pub(super) const ZONES: [&str; 3] = ["north-1a", "north-1b", "north-1c"];

/// The namespace of a team in the `round`-th environment: production, staging, then previews without end.
pub(super) fn namespace(team: &Team, round: usize) -> (String, &'static str) {
    match round {
        0 => (team.name.to_owned(), "production"),
        1 => (format!("{}-staging", team.name), "staging"),
        preview => (format!("{}-preview-{}", team.name, preview - 1), "preview"),
    }
}
